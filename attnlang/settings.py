"""Every environment variable and option, read once into a frozen Options; nobody else reads any."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, TypedDict, TypeGuard, Unpack, get_args

from attnlang.errors import Diagnostic, nearest

Topic = Literal["plan", "kernel", "rules", "cache", "launch"]
"""What `ATTNLANG_DEBUG` can print to standard error."""

TOPICS: tuple[Topic, ...] = get_args(Topic)

CpuLevel = Literal["portable", "avx2", "avx512", "avx512bf16"]
"""Vector instructions of a processor, from those that every one has to the widest."""

CPU_LEVELS: tuple[CpuLevel, ...] = get_args(CpuLevel)
DEFAULT_CACHE_SIZE = 2 * 1024**3

_TARGET = re.compile(r"cuda:[0-9]{2,3}|hip:gfx[0-9a-f]{3,4}|cpu|interpret|eager")
_TARGET_EXAMPLES = ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942", "cpu", "interpret", "eager"]
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) *([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SHOWN = 60


class BadSetting(Diagnostic, ValueError):
    """An environment variable holds what it cannot mean."""

    code = "E501"
    message = "{variable}={value}: {problem}"


@dataclass(frozen=True, slots=True)
class Options:
    """All that the environment decides. An empty variable counts as one that is not set."""

    target: str | None = None
    """`ATTNLANG_TARGET`: where kernels run when a call names no target; None: the device of its tensors."""

    cache_directory: Path | None = None
    """`ATTNLANG_CACHE_DIR`: absolute, need not exist yet; None: the user's cache directory on this system."""

    cache_size: int = DEFAULT_CACHE_SIZE
    """`ATTNLANG_CACHE_SIZE`: bytes on disk before the oldest use goes; 0 keeps nothing on disk."""

    debug: frozenset[Topic] = frozenset()
    """`ATTNLANG_DEBUG`: the topics that are printed to standard error."""

    dump_directory: Path | None = None
    """`ATTNLANG_DUMP`: the directory that gets every stage as a numbered file."""

    compiler: str | None = None
    """`CXX`: the C++ compiler, with its own options if it needs some; None: the first that is installed."""

    cpu_level: CpuLevel | None = None
    """`ATTNLANG_CPU_LEVEL`: use no wider vector instructions than these; None: the widest the machine has."""

    color: bool = True
    """False when `NO_COLOR` is set; a terminal that shows no colours is the command line's own affair."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Options:
        """The options that these variables ask for; BadSetting (a ValueError) names the first wrong one."""
        return cls(
            target=_target(environment),
            cache_directory=_directory(environment, "ATTNLANG_CACHE_DIR"),
            cache_size=_cache_size(environment),
            debug=_debug(environment),
            dump_directory=_dump_directory(environment),
            compiler=environment.get("CXX", "").strip() or None,
            cpu_level=_cpu_level(environment),
            color=not environment.get("NO_COLOR"),
        )


class Changes(TypedDict, total=False):
    """What `override` can change: the fields of Options."""

    target: str | None
    cache_directory: Path | None
    cache_size: int
    debug: frozenset[Topic]
    dump_directory: Path | None
    compiler: str | None
    cpu_level: CpuLevel | None
    color: bool


_overrides: list[Options] = []


def options() -> Options:
    """The options in force: the innermost `override`, else the environment as it was when first asked."""
    return _overrides[-1] if _overrides else _from_process()


@contextmanager
def override(**changes: Unpack[Changes]) -> Generator[Options]:
    """Other options inside a `with` block, in all threads; for tests and for `--target` and its kind."""
    changed = replace(options(), **changes)
    _overrides.append(changed)
    try:
        yield changed
    finally:
        _overrides[:] = [entry for entry in _overrides if entry is not changed]


@cache
def _from_process() -> Options:
    return Options.from_environment(os.environ)


def _target(environment: Mapping[str, str]) -> str | None:
    variable = "ATTNLANG_TARGET"
    value = environment.get(variable, "").strip()
    if not value or _TARGET.fullmatch(value):
        return value or None
    raise _bad(variable, value, f"no such target; there are {', '.join(_TARGET_EXAMPLES)}", _TARGET_EXAMPLES)


def _cache_size(environment: Mapping[str, str]) -> int:
    variable = "ATTNLANG_CACHE_SIZE"
    value = environment.get(variable, "").strip()
    if not value:
        return DEFAULT_CACHE_SIZE
    match = _SIZE.fullmatch(value)
    if match is None:
        raise _bad(variable, value, "a size is a number of bytes, or one with K, M, G or T, as in 500M or 2G")
    number, unit = match.groups()
    return int(float(number) * _UNITS[unit.lower()]) if "." in number else int(number) * _UNITS[unit.lower()]


def _debug(environment: Mapping[str, str]) -> frozenset[Topic]:
    variable = "ATTNLANG_DEBUG"
    topics: set[Topic] = set()
    for word in environment.get(variable, "").split(","):
        topic = word.strip().lower()
        if not topic:
            continue
        if not _is_topic(topic):
            raise _bad(variable, topic, f"no such topic; there are {', '.join(TOPICS)}", list(TOPICS))
        topics.add(topic)
    return frozenset(topics)


def _is_topic(word: str) -> TypeGuard[Topic]:
    return word in TOPICS


def _cpu_level(environment: Mapping[str, str]) -> CpuLevel | None:
    variable = "ATTNLANG_CPU_LEVEL"
    value = environment.get(variable, "").strip().lower()
    if not value or _is_level(value):
        return value or None
    raise _bad(variable, value, f"no such level; there are {', '.join(CPU_LEVELS)}", list(CPU_LEVELS))


def _is_level(word: str) -> TypeGuard[CpuLevel]:
    return word in CPU_LEVELS


def _dump_directory(environment: Mapping[str, str]) -> Path | None:
    variable = "ATTNLANG_DUMP"
    path = _directory(environment, variable)
    if path is not None and path.exists() and not path.is_dir():
        raise _bad(variable, str(path), "this is a file; the stages go into a directory (made when missing)")
    return path


def _directory(environment: Mapping[str, str], variable: str) -> Path | None:
    value = environment.get(variable, "")
    if not value.strip():
        return None
    if "\0" in value:
        raise _bad(variable, value, "a path has no NUL character")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise _bad(variable, value, "no home directory is known for '~'; write the path in full") from None


def _bad(variable: str, value: str, problem: str, candidates: list[str] | None = None) -> BadSetting:
    """The report on one variable, its value cut to what fits on a line, with the nearest word as advice."""
    shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    near = nearest(value[:_SHOWN], candidates or [])
    hint = f"did you mean {near!r}?" if near else ""
    return BadSetting(hint=hint, variable=variable, value=repr(shown), problem=problem)
