"""What was found out about a pattern once: kept by the pattern's identity, for a bounded number of questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from attnlang.ir.pattern import Pattern

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Memo(Generic[Question, Answer]):
    """Answers about patterns, found by `id`: comparing whole patterns would cost more than most answers.

    The pattern is kept beside its answer, so that its id is not another's. Beyond `most` the oldest goes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._answers: dict[tuple[int, Question], tuple[Pattern, Answer]] = {}

    def get(self, pattern: Pattern, question: Question, find: Callable[[], Answer]) -> Answer:
        """The answer to a hashable question, found now if it is not known."""
        known = self._answers.get((id(pattern), question))
        if known is None:
            known = (pattern, find())
            while len(self._answers) >= self.most:
                self._answers.pop(next(iter(self._answers)), None)
            self._answers[id(pattern), question] = known
        return known[1]
