"""Keeps `torch.compile` out of calls: a pattern has a compiler of its own, and runs between two compiled graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch


def _between_graphs(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


# Imported only while a graph is traced: `torch.compiler.disable` loads all of Dynamo.
_REASON = "attnlang compiles patterns by itself; without fullgraph=True they run between graphs"
between_graphs: Callable[..., Any] = cast("Any", torch.compiler).disable(_between_graphs, reason=_REASON)
"""The call, not traced."""
