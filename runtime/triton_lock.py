"""Who may use Triton when: many compilations at once, or one interpreted launch alone.

Triton's interpreter works by replacing parts of `triton.language` while it runs; a compilation in another
thread must not see that.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Condition, RLock, get_ident


class SharedLock:
    """Any number of `shared()` holders or one `exclusive()` one; a waiting exclusive holder goes first.

    Not re-entrant across the two kinds: a thread that holds one kind must not ask for the other.
    """

    def __init__(self) -> None:
        self._changed = Condition(RLock())
        self._shared: dict[int, int] = {}
        self._exclusive = False
        self._waiting = 0

    @contextmanager
    def shared(self) -> Generator[None]:
        """Beside other shared holders. A thread that already holds it enters again at once."""
        me = get_ident()
        with self._changed:
            while me not in self._shared and (self._exclusive or self._waiting):
                self._changed.wait()
            self._shared[me] = self._shared.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._shared[me] -= 1
                if not self._shared[me]:
                    del self._shared[me]
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Alone."""
        with self._changed:
            self._waiting += 1
            try:
                while self._exclusive or self._shared:
                    self._changed.wait()
                self._exclusive = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()

    def has_waiting_writer(self) -> bool:
        """Whether somebody waits to be alone."""
        with self._changed:
            return self._waiting > 0


TRITON = SharedLock()
