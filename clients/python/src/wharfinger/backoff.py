"""Waits between attempts: each longer than the one before, and random, so that many do not try at the same time."""

from __future__ import annotations

import random
from typing import Optional

_random = random.SystemRandom()


def jittered(seconds: float, least: float) -> float:
    """Returns a random part of a time, from ``least`` (0 to 1) of it to all."""
    return seconds * (least + (1.0 - least) * _random.random())


def anywhere(count: int) -> int:
    """Returns a random index."""
    return _random.randrange(max(count, 1))


def request_id() -> str:
    """Returns an id for a request that no other request has."""
    return f"{_random.getrandbits(128):032x}"


class Backoff:
    """Waits that grow from ``first`` to ``longest``. Each is a random part of its span, between a half and all of it."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest, self._next = first, longest, first

    def wait(self, asked: Optional[float] = None) -> float:
        """Returns the next wait: not shorter than what the other side asked for, but at most the longest."""
        wait = max(jittered(self._next, 0.5), min(asked or 0.0, self._longest))
        self._next = min(self._next * 2, self._longest)
        return wait

    def reset(self) -> None:
        """Begins again with the first wait, after a success."""
        self._next = self._first
