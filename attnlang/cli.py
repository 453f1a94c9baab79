"""The command line: one subcommand a file, `cli_<command>.py`; here they are listed, called, and their errors told.

Exit codes: 0 done, 1 the user's mistake (its report is on standard error), 2 wrong usage, 70 a fault of attnlang.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn, Protocol, cast

from attnlang import __version__
from attnlang.cli_console import complain, print_json
from attnlang.cli_options import UsageError
from attnlang.errors import AttnlangError, Diagnostic, Diagnostics, nearest
from attnlang.settings import options as settings

DONE, MISTAKE, USAGE, FAULT, INTERRUPTED = 0, 1, 2, 70, 130

EXAMPLES = """\
examples:
  attnlang new longcat                                        a commented pattern to start from
  attnlang check longcat.attn                                 every mistake of the file at once
  attnlang show longcat.attn -n 256 -o mask.png               who sees whom
  attnlang explain longcat.attn -n 65536 -p window=1024       how it would run, and why
  attnlang run longcat.attn -n 1024                           run, compared with its definition, timed
  attnlang bench longcat.attn -n 4096 --against sdpa,flex     timed beside PyTorch's attentions
  attnlang compile longcat.attn -o build --target cuda:90     kernels ahead of time, no GPU needed
"""


class CommandModule(Protocol):
    """What `attnlang/cli_<command>.py` offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        ...

    def run(self, **options: Any) -> int:
        """Do it; the exit code."""
        ...


@dataclass(frozen=True)
class Command:
    """A subcommand and what `--help` says of it; its module is loaded when it is called."""

    name: str
    summary: str

    def load(self) -> CommandModule:
        """The module that does it."""
        return cast(CommandModule, import_module(f"attnlang.cli_{self.name}"))


COMMANDS = (
    Command(
        "compile", "kernels ahead of time, for GPUs that need not be here and for CPUs, with what they need"
    ),
    Command("check", "parse files and check names, types and axes: all mistakes at once"),
    Command("explain", "the plan: tiles, cost, algorithm, and the reason for each"),
    Command("run", "run on random inputs, compare with the definition, time it"),
    Command("bench", "time it beside PyTorch's attentions, all in turn, and compare their errors"),
    Command("show", "draw the mask and its tiles, a panel for each head"),
    Command("fmt", "write files in the canonical form, comments kept"),
    Command("cache", "what was compiled before: list it, clear it, say where it lies"),
    Command("new", "write a commented pattern to start from"),
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints say where help is, and end with the usage code."""

    def error(self, message: str) -> NoReturn:
        """`attnlang run: error: …` and a way on."""
        complain(f"{self.prog}: error: {message}\n  try: {self.prog} --help")
        raise SystemExit(USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments` (those of the process unless given); the exit code."""
    _utf8(sys.stdout)
    _utf8(sys.stderr)
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _guarded(lambda: _command(words), as_json)


def _command(words: Sequence[str]) -> int:
    settings()  # a wrong environment variable is told before anything is done
    chosen = next((command for command in COMMANDS if words[:1] == [command.name]), None)
    try:
        if chosen is None:
            return _without_command(words)
        parser = Parser(
            prog=f"attnlang {chosen.name}", description=chosen.summary[0].upper() + chosen.summary[1:]
        )
        module = chosen.load()
        module.add_arguments(parser)
        fields = vars(parser.parse_args(words[1:]))
    except SystemExit as end:  # argparse has said what there was to say
        return end.code if isinstance(end.code, int) else USAGE
    return module.run(**fields)


def _without_command(words: Sequence[str]) -> int:
    """`--help` and `--version`; else a complaint."""
    width = max(len(command.name) for command in COMMANDS)
    listed = "".join(f"  {command.name:{width}}  {command.summary}\n" for command in COMMANDS)
    parser = Parser(
        prog="attnlang",
        usage="attnlang COMMAND …",
        description="Attention mechanisms, written as their equations, compiled to kernels.",
        epilog=f"commands (each has its own --help):\n{listed}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"attnlang {__version__}")
    if words and not words[0].startswith("-"):
        near = nearest(words[0], [command.name for command in COMMANDS])
        parser.error(f"there is no command {words[0]!r}" + (f", did you mean {near!r}?" if near else ""))
    parser.parse_args(words)
    parser.print_help()
    return USAGE


# --------------------------------------------------------------------------------------------------------- errors


def _guarded(action: Callable[[], int], as_json: bool) -> int:
    """The exit code of `action`, with every error told as its kind deserves; never a traceback unasked."""
    try:
        return action()
    except UsageError as error:
        complain(f"attnlang: error: {error}")
        return USAGE
    except AttnlangError as error:
        complain(str(error))
        if as_json:
            print_json({"ok": False, "errors": [item.to_dict() for item in mistakes_of(error)]})
        return MISTAKE
    except KeyboardInterrupt:
        complain("attnlang: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `attnlang explain … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except ModuleNotFoundError as error:
        complain(
            f"attnlang: error: the Python package '{error.name}' is not installed\n  pip install {error.name}"
        )
        return MISTAKE
    except OSError as error:
        complain(
            f"attnlang: error: {error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        )
        return MISTAKE
    except Exception as error:
        if _is_memory(error):
            complain("attnlang: error: not enough memory for this size\n  try a smaller -n or fewer --heads")
            return MISTAKE
        return _fault(error)


def mistakes_of(error: AttnlangError) -> list[Diagnostic]:
    """The single mistakes that an error tells of; none of an error without a code."""
    match error:
        case Diagnostics():
            return error.errors
        case Diagnostic():
            return [error]
        case _:
            return []


def _fault(error: Exception) -> int:
    """One line on an error that nobody foresaw; the traceback where ATTNLANG_DEBUG is set."""
    if _debugging():
        complain("".join(traceback.format_exception(error)).rstrip())
    what = " ".join(str(error).split())[:300]
    complain(
        f"attnlang: internal error: {type(error).__name__}: {what}: please report this"
        + ("" if _debugging() else " (ATTNLANG_DEBUG=plan shows where it came from)")
    )
    return FAULT


def _is_memory(error: Exception) -> bool:
    """Whether Python, PyTorch or the GPU had not enough memory."""
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


def _debugging() -> bool:
    try:
        return bool(settings().debug)
    except AttnlangError:
        return False


def _warn(message: Warning | str, category: type[Warning], *place: object) -> None:
    """Our own warnings are a line on standard error; those of libraries are theirs, and not the user's."""
    if category.__module__.split(".")[0] == "attnlang":
        complain(f"attnlang: warning: {message}")


def _utf8(stream: Any) -> None:
    """Reports and plans hold × and ≤: where the terminal cannot show one, it is replaced, never an error."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
