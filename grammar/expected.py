"""What grammar would have accepted, said in the user's words instead of the names of terminals."""

from __future__ import annotations

_OPERAND = frozenset(("NAME", "INTEGER", "FLOAT", "TRUE", "FALSE", "LPAR"))
_OPERATORS = frozenset(
    (
        "ORDER",
        "EQUALITY",
        "PLUS",
        "MINUS",
        "STAR",
        "SLASH",
        "FLOOR",
        "MOD",
        "AT",
        "DOUBLE_STAR",
        "_AND",
        "_OR",
        "_IF",
        "DOT",
        "LSQB",
    )
)
_MARKS = {
    "COLON": "':'",
    "EQUAL": "'='",
    "COMMA": "','",
    "RPAR": "')'",
    "RSQB": "']'",
    "LPAR": "'('",
    "LSQB": "'['",
    "VBAR": "'|'",
    "NAME": "a name",
    "STRING": "text in double quotes",
    "LONG_STRING": "text in double quotes",
    "ORDER": "a bound such as '>= 1'",
    "$END": "the end of the line",
}


def keywords(expected: frozenset[str]) -> list[str]:
    """The keywords among the accepted terminals, as they are written."""
    return sorted(name.strip("_").lower() for name in expected if name.startswith("_") or name == "MOD")


def in_words(expected: frozenset[str]) -> str:
    """`an operator, 'by' or the end of the line`"""
    rest = set(expected)
    words: list[str] = []
    if expected >= {"NAME", "INTEGER", "LPAR"}:
        words.append("an expression")
        rest -= _OPERAND | {"MINUS", "_NOT"}
    elif "PLUS" in expected:
        words.append("an operator")
        rest -= _OPERATORS | {"LPAR"}
    words += [_MARKS[name] for name in _MARKS if name in rest and name != "$END"]
    words += [f"'{word}'" for word in keywords(frozenset(rest))]
    if "$END" in rest:
        words.append(_MARKS["$END"])
    words = list(dict.fromkeys(words))
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " or " + words[-1]
