"""Threads of one process take turns at building the same kernel."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Turn:
    """The right to build one key in this process; dropped when nobody holds or awaits it."""

    lock: threading.Lock
    owner: int | None = None
    users: int = 0


class Turns:
    """A lock for every key that is being built in this process; each waits at most `seconds` for another."""

    def __init__(self, seconds: float) -> None:
        self._seconds = min(seconds, threading.TIMEOUT_MAX)
        self._mutex = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    def keys(self) -> frozenset[str]:
        """The keys that are being built."""
        with self._mutex:
            return frozenset(self._turns)

    @contextmanager
    def take(self, key: str) -> Generator[bool]:
        """Wait for the other threads that build `key`; False when they take too long.

        RuntimeError: this very thread is building it already.
        """
        with self._mutex:
            turn = self._turns.setdefault(key, _Turn(threading.Lock()))
            if turn.owner == threading.get_ident():
                raise RuntimeError(f"the builder of kernel {key[:12]} asks the cache for this very kernel")
            turn.users += 1
        in_time = False
        try:
            in_time = turn.lock.acquire(timeout=self._seconds)
            if in_time:
                turn.owner = threading.get_ident()
            yield in_time
        finally:
            if in_time:
                turn.owner = None
                turn.lock.release()
            with self._mutex:
                turn.users -= 1
                if not turn.users and self._turns.get(key) is turn:
                    del self._turns[key]

    def forget(self) -> None:
        """In a forked child: nothing is being built, for the threads that did stayed with the parent."""
        self._mutex = threading.Lock()
        self._turns = {}
