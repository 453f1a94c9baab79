"""`attnlang new`: a commented pattern to start from, which checks and runs as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from attnlang import compiler
from attnlang.cli_console import say
from attnlang.cli_write import FileCannotBeWritten
from attnlang.errors import AttnlangError, Diagnostic

STARTER = """\
# {name}: what it is, and where it comes from
#
#   attnlang check {file}                      is it right?
#   attnlang show {file} -n 256 -o {name}.png  which pairs does it keep?
#   attnlang explain {file} -n 4096            how would it run, and why?
#   attnlang run {file} -n 1024                does the kernel agree with the definition?
pattern {name}(window: int >= 1 = 256):
    # A tensor of the call beside Q, K and V, here a number for every head h. Other axes: b, q, k, d, a length.
    tensor slopes[h]

    # The pairs of a query q and a key k that may interact …
    mask      q >= k
    # … and those of them that the pattern keeps: what it costs follows from this line.
    sparsity  q - k < window
    # The number that such a pair gets, and how the numbers of a query become weights.
    score     Q[q] @ K[k] * scale - slopes[h] * (q - k)
    normalize softmax
"""


class FileExists(Diagnostic):
    """What would be written is there already."""

    code = "E604"
    message = "'{file}' exists"
    hint = "it is left as it is: choose another name or --directory"


class BadPatternName(Diagnostic):
    """A pattern cannot be called so."""

    code = "E605"
    message = "a pattern cannot be called {name!r}"
    hint = "letters, digits and _, not a digit first, and no word of the language"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the name of the pattern; the file is NAME.attn")
    parser.add_argument("-d", "--directory", metavar="DIR", default=".", help="where the file goes (here)")


def run(name: str, directory: str) -> int:
    """Write NAME.attn; nothing is ever overwritten."""
    name = name.removesuffix(".attn")
    path = Path(directory, f"{name}.attn")
    text = starter(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise FileExists(file=str(path)) from None
    except OSError as error:
        raise FileCannotBeWritten(file=str(path), reason=error.strerror or str(error)) from None
    say(f"{path}: a pattern to start from\nnext: attnlang check {path}")
    return 0


def starter(name: str) -> str:
    """The text of a new file. Raises BadPatternName."""
    if not name.isidentifier() or not name.isascii() or len(name) > 60:
        raise BadPatternName(name=name[:60])
    text = STARTER.format(name=name, file=f"{name}.attn")
    try:
        compiler.parse(text)
    except AttnlangError:
        raise BadPatternName(name=name) from None
    return text
