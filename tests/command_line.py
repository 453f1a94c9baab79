"""Commands run in a folder of their own, as the tests of the command line want them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attnlang.cli import main

GOOD = """\
# A window
pattern near(window: int >= 1 = 8):
    mask     causal
    sparsity window(window)  # the last ones
"""
BAD = """\
pattern wrong(window: int = 8):
    sparsity q - k < widow
    score    Q[q] @ K[k] * sale
"""
LOOSE = GOOD.replace("    ", "  ")


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, read as JSON."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


def runner(capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands inside `folder`, which holds near.attn (GOOD) and wrong.attn (BAD)."""
    monkeypatch.chdir(folder)
    (folder / "near.attn").write_text(GOOD)
    (folder / "wrong.attn").write_text(BAD)

    def command(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return command
