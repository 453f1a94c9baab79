"""Orders of tokens in the words of the pattern: `queries by q mod 8, keys by k mod 8`."""

from __future__ import annotations

from itertools import takewhile

from attnlang.passes.boxes import BIG, Node
from attnlang.passes.order_search import Candidate
from attnlang.passes.order_standing import Side, Standing

Names = tuple[str, str]
"""What the query index and the key index are called."""
_BETWEEN = {"floordiv": "//", "mod": "mod", "and": "and", "or": "or", "mul": "*", "div": "/", "eq": "=="}
_LONGEST = 60


def described(candidate: Candidate, queries: Standing, keys: Standing, names: Names) -> str:
    """How queries and keys stand."""
    sides = (("queries", candidate.queries, queries), ("keys", candidate.keys, keys))
    if not candidate.queries.by and not candidate.keys.by:
        return "tokens as they are stored"
    said = [f"{who} {_side(side, standing, names)}" for who, side, standing in sides]
    free = any(
        len(standing.places(side)) > -(-standing.line.size // standing.tile) * standing.tile
        for _, side, standing in sides
    )
    return ", ".join(said) + ("; each cell begins with a tile" if free else "")


def _side(side: Side, standing: Standing, names: Names) -> str:
    if not side.by:
        return "as they are stored"
    parts = [
        (written(node, names), -(-standing.extent(node) // amount), amount < standing.extent(node))
        for node, amount in side.by
    ]
    whole = list(takewhile(lambda part: not part[2], parts))
    boxes = parts[len(whole) :]
    said = ["by " + ", ".join(text for text, *_ in whole)] if whole else []
    if boxes:
        widths, texts = " × ".join(str(width) for _, width, _ in boxes), ", ".join(text for text, *_ in boxes)
        said.append(f"in boxes of {widths} by {texts}")
    return ", then ".join(said)


def written(node: Node, names: Names) -> str:
    """A node of one side as the pattern could say it; what is long is cut."""
    text = _written(node, names)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _written(node: Node, names: Names) -> str:
    args = [_inner(arg, names) for arg in node.args]
    match node.op:
        case "const":
            return str(node.value).lower()
        case "index":
            return names[node.side - 1]
        case "sum":
            return _sum(node, args)
        case "range":
            low, high = node.data
            form = _written(node.args[0], names)
            if low == high:
                return f"{form} == {low}"
            ends = (f"{low} <= " if low > -BIG else "", f" <= {high}" if high < BIG else "")
            return f"{ends[0]}{form}{ends[1]}"
        case "read":
            source, fixed, _ = node.data  # the fixed offsets are those of the batch entry and the head
            before = "…, " if any(at is not None for at in fixed) else ""
            return f"{source}[{before}{', '.join(_written(arg, names) for arg in node.args)}]"
        case op if op in _BETWEEN and len(args) == 2:
            return f"{args[0]} {_BETWEEN[op]} {args[1]}"
        case op:
            return f"{op}({', '.join(_written(arg, names) for arg in node.args)})"


def _sum(node: Node, args: list[str]) -> str:
    terms = [
        (factor < 0, text if abs(factor) == 1 else f"{abs(factor)} * {text}")
        for factor, text in zip(node.data[:-1], args, strict=True)
    ]
    if node.data[-1]:
        terms.append((node.data[-1] < 0, str(abs(node.data[-1]))))
    first, *others = terms
    return (
        ("-" if first[0] else "")
        + first[1]
        + "".join(f" {'-' if less else '+'} {text}" for less, text in others)
    )


def _inner(node: Node, names: Names) -> str:
    """An operand, in parentheses where it is an operation itself."""
    text = _written(node, names)
    return f"({text})" if node.op in ("sum", "range", *_BETWEEN) else text
