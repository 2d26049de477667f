"""A watch that resumes after restarts of the broker, broken connections and silence."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import Enum
from typing import AsyncIterator, Optional

from wharfinger.v1 import lease_pb2, types_pb2

from .backoff import Backoff
from .errors import CallError, CapacityError, Resync, Unavailable
from .transport import Transport

_PATH = "/wharfinger.v1.LeaseService/Watch"
_DEFAULT_BOOKMARKS = 5.0
_SILENT_BOOKMARKS = 3
"""Number of missed bookmarks in a row after which a connection is dead."""
_OPEN_TIMEOUT = 10.0


class Seen:
    """Latest revision in any answer. Later reads are not older, whichever server answers."""

    def __init__(self) -> None:
        self.latest = 0

    def note(self, revision: int) -> None:
        """Notes the revision of an answer."""
        self.latest = max(self.latest, revision)

    def forget(self) -> None:
        """The servers never reached the revision: their database was restored from a backup."""
        self.latest = 0


class Kind(Enum):
    """What an event of a watch reports."""

    LEASE = "lease"
    """A lease in its latest state. The same state may come twice; an older one never does, but after ``RESYNC``."""
    SYNCED = "synced"
    """The current state is complete, or the changes since the revision of the request."""
    BOOKMARK = "bookmark"
    """Nothing else changed."""
    RESYNC = "resync"
    """The watch could not resume. The current state follows, with the ended leases that are kept, and then ``SYNCED``. A lease
    that is not among them has ended and is forgotten."""


@dataclass(frozen=True)
class Watched:
    """One event of a watch."""

    kind: Kind
    revision: int
    """Everything up to this revision was delivered. 0: the current state is not complete."""
    lease: Optional[types_pb2.Lease] = None
    """The lease of ``LEASE``."""


async def watch(transport: Transport, seen: Seen, request: lease_pb2.WatchRequest) -> AsyncIterator[Watched]:
    """Yields changes of leases without a gap. Resumes by itself; raises ``CallError`` for what a repetition does not mend."""
    asked = lease_pb2.WatchRequest()
    asked.CopyFrom(request)
    interval = request.bookmark_interval.ToTimedelta().total_seconds() if request.HasField("bookmark_interval") else 0.0
    silence = (interval or _DEFAULT_BOOKMARKS) * _SILENT_BOOKMARKS
    backoff = Backoff(0.05, 5.0)
    revision, began, renewed = request.from_revision, False, False
    while True:
        asked.from_revision = revision
        asked.min_revision = max(request.min_revision, seen.latest)
        error: Optional[CallError] = None
        try:
            async for message in transport.stream(_PATH, asked, lease_pb2.WatchResponse, _OPEN_TIMEOUT, silence):
                backoff.reset()
                began, renewed = True, False
                revision = max(revision, message.revision)
                what = message.WhichOneof("event")
                if what == "lease":
                    yield Watched(Kind.LEASE, revision, message.lease)
                elif what == "bookmark":
                    yield Watched(Kind.SYNCED if message.bookmark.synced else Kind.BOOKMARK, revision)
        except CallError as failed:
            error = failed
        again = time.monotonic() + backoff.wait(error.retry_after if error else None)
        resync = False
        if isinstance(error, Resync):
            seen.forget()
            resync = True
        elif error is not None and error.is_unauthenticated and began and not renewed:
            # The token has ended, or was replaced: one try with the present one.
            renewed, resync = True, revision == 0
        elif error is None or isinstance(error, (Unavailable, CapacityError)):
            # Cut off within the current state: a delivered lease may have ended since, and only the ended leases show it.
            resync = began and revision == 0
        else:
            raise error
        if resync:
            revision, began = 0, False
            asked.include_ended = True
            yield Watched(Kind.RESYNC, 0)
        await asyncio.sleep(max(0.0, again - time.monotonic()))
