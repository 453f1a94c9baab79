"""Options that several commands share, and the values in them: sizes, parameters, targets."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from attnlang.errors import AttnlangError

Pair = tuple[str, str]
"""`-p name=value` as it was written."""

_NAME = re.compile(r"[A-Za-z_]\w*")
_INT = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?|[+-]?inf")
_COUNT = re.compile(r"([0-9]{1,12})([kKmM]?)")
_UNITS = {"": 1, "k": 1024, "m": 1024**2}
DTYPES = {
    "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "half": "fp16",
    "fp32": "fp32", "float32": "fp32", "float": "fp32",
}  # fmt: skip


class UsageError(AttnlangError):
    """The command line itself is wrong: exit code 2."""


# ------------------------------------------------------------------------------------------------ values


def count(text: str) -> int:
    """A number of at least 1, as in `4096`, `64k` or `1M` (of 1024)."""
    match = _COUNT.fullmatch(text)
    value = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count (as in 4096 or 64k)")
    return value


def natural(text: str) -> int:
    """A number of at least 0."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number (as in 0 or 4096)")
    return int(text)


def pair(text: str) -> Pair:
    """`name=value`; the value is read when the pattern is known."""
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name.strip()) or not value.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name.strip(), value.strip()


def dtype(text: str) -> str:
    """bf16, fp16 or fp32, by any of their names."""
    if text.lower() in DTYPES:
        return DTYPES[text.lower()]
    raise argparse.ArgumentTypeError(f"{text!r} is no number format of kernels (bf16, fp16, fp32)")


def dtype_or_double(text: str) -> str:
    """bf16, fp16, fp32 or fp64, by any of their names."""
    return "fp64" if text.lower() in ("fp64", "float64", "double") else dtype(text)


def value_of(name: str, text: str) -> bool | int | float:
    """The number or truth value that `text` writes; UsageError where it writes none."""
    match text.lower():
        case "true":
            return True
        case "false":
            return False
        case lower if _INT.fullmatch(lower):
            return int(lower)
        case lower if _FLOAT.fullmatch(lower):
            return float(lower)
        case _:
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise UsageError(f"-p {name}={shown}: a value is an int, a float, true or false")


def values_of(pairs: Sequence[Pair]) -> dict[str, bool | int | float]:
    """The parameters that were given; UsageError where one is given twice or has no value."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"-p {name} is given twice")
    return {name: value_of(name, text) for name, text in pairs}


# ----------------------------------------------------------------------------------------------- options


def add_file(parser: argparse.ArgumentParser) -> None:
    """FILE and what is said of its pattern."""
    parser.add_argument("file", metavar="FILE", help="an .attn file")
    parser.add_argument("--pattern", metavar="NAME", help="which pattern of the file, where it has several")
    parser.add_argument(
        "-p", "--param", dest="pairs", metavar="NAME=VALUE", type=pair, action="append", default=[],
        help="a parameter of the pattern (int, float, true or false); repeatable",
    )  # fmt: skip


def add_length(parser: argparse.ArgumentParser, default: int) -> None:
    """-n and --nq."""
    parser.add_argument(
        "-n", dest="n", metavar="N", type=count, default=default,
        help=f"number of keys, as in 4096 or 64k ({default})",
    )  # fmt: skip
    parser.add_argument(
        "--nq", metavar="N", type=count, help="number of queries, the last ones of the sequence (N)"
    )


def add_heads(parser: argparse.ArgumentParser, default: int) -> None:
    """--heads and --kv-heads."""
    parser.add_argument("--heads", metavar="H", type=count, default=default, help=f"query heads ({default})")
    parser.add_argument(
        "--kv-heads", metavar="H", type=count, help="key and value heads (as many as query heads)"
    )


def add_numbers(
    parser: argparse.ArgumentParser, head_dim: int, dtype_default: str | None, *, double: bool = False
) -> None:
    """--head-dim, --value-dim and --dtype; `double`: fp64 too, which kernels of CPUs compute in."""
    parser.add_argument(
        "--head-dim",
        metavar="D",
        type=count,
        default=head_dim,
        help=f"features of queries and keys ({head_dim})",
    )
    parser.add_argument("--value-dim", metavar="D", type=count, help="features of values (those of queries)")
    parser.add_argument(
        "--dtype", metavar="TYPE", type=dtype_or_double if double else dtype, default=dtype_default,
        help=("bf16, fp16, fp32, or fp64 on a CPU" if double else "bf16, fp16 or fp32")
        + f" ({dtype_default or 'bf16 on a GPU, else fp32'})",
    )  # fmt: skip


def add_target(parser: argparse.ArgumentParser, default: str | None, otherwise: str) -> None:
    """--target, once."""
    parser.add_argument(
        "--target", metavar="TARGET", default=default,
        help=f"cuda:80, cuda:90, cuda:100, hip:gfx942, cpu, interpret or eager ({otherwise})",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", dest="as_json", action="store_true", help="one JSON object, for programs")
