"""The comment on top of generated code: what it is, and the pattern it came from."""

from __future__ import annotations


def banner(rows: tuple[str, ...], mark: str) -> list[str]:
    """The rows as comments."""
    return [f"{mark} {row}".rstrip() for row in rows]
