"""Syntax to pattern IR: names, kinds, axes and lengths; every mistake of meaning is found in this room."""

from attnlang.elaborate.whole import elaborate

__all__ = ["elaborate"]
