"""Keeps a lease: renews it at a third of its TTL, takes the news of a watch, and reports its loss.

Two times of a lease decide, and no state, so that it survives states of a later version: ``ended_at`` set, it is over; else
``active_at`` set, the holder may work; else it waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from enum import Enum
from typing import TYPE_CHECKING, Callable, Optional

import grpc

from wharfinger.v1 import lease_pb2, trust_pb2, types_pb2

from .backoff import Backoff, jittered
from .errors import CallError, LeaseBroken, NotFound, StateError, WharfingerError

if TYPE_CHECKING:
    from .client import Client

_log = logging.getLogger("wharfinger")


class Status(Enum):
    """Status of a kept lease."""

    WAITING = "waiting"
    """The lease waits, or its slot is made ready; ``trouble`` has the last failure."""
    ACTIVE = "active"
    """The holder may work."""
    DOUBT = "doubt"
    """The holder may work; the resource is in doubt."""
    ENDS = "ends"
    """The holder may work until the resource ends at ``ends_at``."""
    LOST = "lost"
    """The holder must stop."""


def is_over(lease: types_pb2.Lease) -> bool:
    """Whether the lease is over, whatever its state."""
    return lease.HasField("ended_at")


def may_work(lease: types_pb2.Lease) -> bool:
    """Whether the holder may work, whatever the state."""
    return lease.HasField("active_at") and not is_over(lease)


def status_of(lease: types_pb2.Lease) -> Status:
    """Returns the status by what the broker reports of a lease."""
    if is_over(lease):
        return Status.LOST
    if not may_work(lease):
        return Status.WAITING
    if lease.HasField("ends_at"):
        return Status.ENDS
    return Status.DOUBT if lease.HasField("doubt") else Status.ACTIVE


def ttl_of(lease: types_pb2.Lease) -> float:
    """Returns the TTL of a lease in seconds."""
    return lease.ttl.ToTimedelta().total_seconds() or 60.0


def state_name(lease: types_pb2.Lease) -> str:
    """Returns the name of a lease's state."""
    try:
        return types_pb2.LeaseState.Name(lease.state).removeprefix("LEASE_STATE_")
    except ValueError:
        return f"in state {lease.state}"


def broken(lease: types_pb2.Lease, why: str, resource_id: str) -> LeaseBroken:
    """Returns the error for a lost lease that was on this resource."""
    if why == "forgotten":
        text = f"the broker no longer knows lease {lease.id}"
    elif why == "no_contact":
        text = f"no contact with the broker for the whole TTL of lease {lease.id}: take it for lost"
    else:
        text = f"lease {lease.id} is {state_name(lease)}"
        causes = lease.causes
        if len(causes) > 1:
            near, root = causes[0], causes[-1]
            text += f": {near.reason} ({near.detail}), because of {root.reason}: {root.detail}"
        elif causes:
            text += f": {causes[0].reason} ({causes[0].detail})"
        elif lease.fail_detail:
            text += f": {lease.fail_detail}"
    return LeaseBroken(lease, why, text, resource_id)


class Keeper:
    """Keeps one lease until it is lost or ``stop`` is called. Releases nothing."""

    def __init__(self, client: "Client", lease: types_pb2.Lease) -> None:
        self.id = lease.id
        self.lease = lease
        self.resource_id = lease.resource_id
        """The resource of the lease, also after its end."""
        self.status = Status.WAITING
        self.lost: Optional[LeaseBroken] = None
        """Why the lease is lost."""
        self.on_change: list[Callable[[], None]] = []
        """Called at each change of the lease, within the loop."""
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(0.1, max(ttl_of(lease) / 10, 0.2))
        self._renew_timer: Optional[asyncio.TimerHandle] = None
        self._held_timer: Optional[asyncio.TimerHandle] = None
        self._renewal: Optional[asyncio.Task[None]] = None
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._stranger = False
        self._stopped = False
        client.wards.join(self)
        self._told()

    def news(self, lease: types_pb2.Lease) -> None:
        """Takes a state of the lease. Renewals and the watch may cross, so that it may be older than the known one."""
        if self._stopped or lease.revision < self.lease.revision:
            return
        self._client.seen.note(lease.revision)
        self.lease = lease
        self.resource_id = lease.resource_id or self.resource_id
        self._told()

    def ask(self) -> None:
        """Renews at once: the lease cannot be watched now."""
        if not self._stopped and self._renewal is None:
            self._renew_at(0.0)

    async def changed(self) -> None:
        """Waits for the next change."""
        await asyncio.shield(self._changed)

    def stop(self) -> None:
        """Stops the renewals."""
        if self._stopped:
            return
        self._stopped = True
        for timer in (self._renew_timer, self._held_timer):
            if timer is not None:
                timer.cancel()
        if self._renewal is not None and self._renewal is not asyncio.current_task():
            self._renewal.cancel()
        self._client.wards.leave(self)

    def _told(self) -> None:
        status = status_of(self.lease)
        if status is Status.LOST:
            self._lose("ended")
            return
        if status is not Status.WAITING:
            if self._held_timer is None:
                self._held_for(ttl_of(self.lease))
            if self._renew_timer is None and self._renewal is None:
                self._renew_at(_first_renewal(self.lease))
        self.status = status
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)
        for told in self.on_change[:]:
            told()

    def _lose(self, why: str) -> None:
        if self.lost is None and not self._stopped:
            self.lost = broken(self.lease, why, self.resource_id)
            self.status = Status.LOST
            self.stop()
            self._tell()

    def _held_for(self, seconds: float) -> None:
        """The slot is the holder's for this time, whatever happens to the connection."""
        if self._held_timer is not None:
            self._held_timer.cancel()
        self._held_timer = self._loop.call_later(seconds, self._lose, "no_contact")

    def _renew_at(self, seconds: float) -> None:
        if self._renew_timer is not None:
            self._renew_timer.cancel()
        self._renew_timer = self._loop.call_later(seconds, self._renew_now)

    def _renew_now(self) -> None:
        if self._renewal is None and not self._stopped:
            self._renewal = self._loop.create_task(self._renew())
            self._renewal.add_done_callback(self._renewed)

    def _renewed(self, task: "asyncio.Task[None]") -> None:
        self._renewal = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("a renewal of lease %s failed by a mistake of the client", self.id, exc_info=task.exception())
            self._renew_at(self._backoff.wait())

    async def _renew(self) -> None:
        """One try. A lease that cannot be renewed is read instead."""
        sent: Optional[float] = time.monotonic()
        timeout = max(ttl_of(self.lease) / 3, 0.5)
        try:
            try:
                request = lease_pb2.RenewRequest(lease_id=self.id)
                lease = (await self._client.once("Renew", request, lease_pb2.RenewResponse, timeout)).lease
            except StateError:
                # A server that follows may be a moment behind: the read is not older than any answer before.
                sent = None
                read = lease_pb2.GetRequest(lease_id=self.id, min_revision=self._client.seen.latest)
                lease = (await self._client.once("Get", read, lease_pb2.GetResponse, timeout)).lease
        except NotFound:
            if await self._is_stranger(timeout):
                self._renew_at(self._backoff.wait())
            else:
                self._lose("forgotten")
            return
        except WharfingerError as error:
            _log.debug("a renewal of lease %s failed: %s", self.id, error)
            self._renew_at(self._backoff.wait())
            return
        self._backoff.reset()
        self._stranger = False
        if sent is not None and may_work(lease):
            # From the time of sending: the broker counts from the arrival, which is later.
            self._held_for(sent + ttl_of(lease) - time.monotonic())
        self._renew_at(jittered(ttl_of(lease) / 3, 0.8))
        self.news(lease)

    async def _is_stranger(self, timeout: float) -> bool:
        """Whether a lease that is not found is another caller's, or it cannot be found out now."""
        if not self.lease.principal:
            return False
        path = "/wharfinger.v1.TrustService/WhoAmI"
        try:
            who = await self._client.transport.unary(
                path, trust_pb2.WhoAmIRequest(), trust_pb2.WhoAmIResponse, timeout
            )
        except CallError as error:
            # A broker that cannot say who calls has forgotten the lease.
            return error.code is not grpc.StatusCode.UNIMPLEMENTED
        if who.principal == self.lease.principal:
            return False
        if not self._stranger:
            self._stranger = True
            _log.warning(
                "the credentials are those of %s, and lease %s belongs to %s: it cannot be renewed until they are right again",
                who.principal,
                self.id,
                self.lease.principal,
            )
        return True


def _first_renewal(lease: types_pb2.Lease) -> float:
    """Seconds until the first renewal. A lease that became active long ago has less than a TTL left, and is renewed at once. The
    same holds if the clocks of the two machines differ, since the rest of the TTL is then unknown."""
    ttl = ttl_of(lease)
    left = lease.expires_at.seconds + lease.expires_at.nanos / 1e9 - time.time() if lease.HasField("expires_at") else 0.0
    return jittered(ttl / 3, 0.8) if ttl * 0.9 <= left <= ttl * 1.1 else 0.0
