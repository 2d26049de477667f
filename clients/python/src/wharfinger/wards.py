"""One watch for many kept leases: a stream names up to 128 of them, and is opened anew when another one joins."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Optional, Protocol

from wharfinger.v1 import lease_pb2, types_pb2

from .backoff import Backoff
from .errors import NotFound, WharfingerError
from .transport import Transport
from .watch import Kind, Seen, watch

_log = logging.getLogger("wharfinger")

_MOST = 128
"""Maximum number of leases of one stream."""
_GATHER = 0.02
"""Minimum time between two openings for leases that join, in seconds."""


class Kept(Protocol):
    """A lease that is kept."""

    id: str

    def news(self, lease: types_pb2.Lease) -> None:
        """Takes a state of the lease."""

    def ask(self) -> None:
        """The lease cannot be watched now: a renewal tells how it is."""


class Wards:
    """The streams of one client."""

    def __init__(self, transport: Transport, seen: Seen) -> None:
        self._transport, self._seen = transport, seen
        self._wards: list[_Ward] = []
        self._of: dict[str, list[tuple[_Ward, Kept]]] = {}

    def join(self, kept: Kept) -> None:
        """Reports the states of a lease from now on."""
        ward = next((ward for ward in self._wards if ward.has_room_for(kept.id)), None)
        if ward is None:
            ward = _Ward(self._transport, self._seen)
            self._wards.append(ward)
        self._of.setdefault(kept.id, []).append((ward, kept))
        ward.join(kept)

    def leave(self, kept: Kept) -> None:
        """Reports no states of a lease any more."""
        pairs = self._of.pop(kept.id, [])
        rest = [pair for pair in pairs if pair[1] is not kept]
        if rest:
            self._of[kept.id] = rest
        for ward, found in pairs:
            if found is kept and ward.leave(kept):
                self._wards.remove(ward)

    async def close(self) -> None:
        """Ends all streams."""
        wards, self._wards, self._of = self._wards, [], {}
        for ward in wards:
            await ward.close()


class _Ward:
    def __init__(self, transport: Transport, seen: Seen) -> None:
        self._transport, self._seen = transport, seen
        self._kept: dict[str, list[Kept]] = {}
        self._task: Optional[asyncio.Task[None]] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self._opened = 0.0
        self._backoff = Backoff(0.2, 10.0)

    def has_room_for(self, id: str) -> bool:
        return id not in self._kept and len(self._kept) < _MOST

    def join(self, kept: Kept) -> None:
        self._kept.setdefault(kept.id, []).append(kept)
        self._open_within(max(0.0, self._opened + _GATHER - time.monotonic()))

    def leave(self, kept: Kept) -> bool:
        """Returns whether it was the last one."""
        rest = [other for other in self._kept.pop(kept.id, []) if other is not kept]
        if rest:
            self._kept[kept.id] = rest
        if self._kept:
            return False
        self._stop()
        return True

    async def close(self) -> None:
        task = self._task
        self._stop()
        if task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _open_within(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._open)

    def _open(self) -> None:
        self._stop()
        if self._kept:
            self._opened = time.monotonic()
            self._task = asyncio.get_running_loop().create_task(self._follow(list(self._kept)))

    async def _follow(self, ids: list[str]) -> None:
        request = lease_pb2.WatchRequest(lease_ids=ids)
        try:
            async with contextlib.aclosing(watch(self._transport, self._seen, request)) as events:  # type: ignore[type-var]
                async for event in events:
                    if event.kind is Kind.LEASE and event.lease is not None:
                        self._backoff.reset()
                        for kept in self._kept.get(event.lease.id, [])[:]:
                            kept.news(event.lease)
        except WharfingerError as error:
            # One of the leases is forgotten, or these are the credentials of another caller: renewals tell.
            if not isinstance(error, NotFound):
                _log.warning("leases cannot be watched: %s", error)
            for kept in [kept for several in self._kept.values() for kept in several]:
                kept.ask()
            if self._kept:
                self._task = None
                self._open_within(self._backoff.wait(None))
