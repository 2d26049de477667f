"""The client of a broker, for asyncio."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable, Mapping, Optional, Sequence, Type, TypeVar

from google.protobuf import duration_pb2

from wharfinger.v1 import admin_pb2, lease_pb2, trust_pb2, types_pb2

from .backoff import Backoff, request_id
from .errors import Resync, Unavailable
from .lease import Lease
from .settings import Settings
from .transport import Message, Transport
from .wards import Wards
from .watch import Seen, Watched, watch

T = TypeVar("T")


def span(seconds: float) -> duration_pb2.Duration:
    """Returns a time in seconds as a message."""
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


class Client:
    """A client of a broker. It connects at its first call, and belongs to the loop of asyncio that runs then.

    Without arguments the settings are those of the environment: the variables of the command line (``WHARFINGER_SERVER`` and so
    on). ``settings``: all of them; else each named one goes before the environment's.
    """

    def __init__(self, server: Optional[str] = None, *, settings: Optional[Settings] = None, **given: Any) -> None:
        self.settings = settings if settings is not None else Settings.from_environment(server=server, **given)
        self.transport = Transport(self.settings)
        self.seen = Seen()
        self.wards = Wards(self.transport, self.seen)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Releases nothing."""
        await self.wards.close()
        await self.transport.close()

    # Leases.

    def lease(
        self,
        pool: str = "",
        *,
        labels: Optional[Mapping[str, str]] = None,
        branch: str = "",
        ref: str = "",
        tag: str = "",
        commit: str = "",
        params: Optional[Mapping[str, str]] = None,
        work: str = "",
        holder: str = "",
        request_id: str = "",
        priority: int = 0,
        ttl: Optional[float] = None,
        wait: Optional[float] = None,
        no_queue: bool = False,
        expected: Optional[float] = None,
        tags: Optional[Mapping[str, str]] = None,
        avoid: Sequence[str] = (),
    ) -> Lease:
        """Returns one lease, which is asked for at its ``async with``. All times are in seconds.

        ``pool``, ``labels``: what to lease. ``branch``, ``ref``, ``tag``, ``commit``, ``params``: parameters for the adapter.
        ``work``: name of the work, the same each time that it is tried. ``wait``: maximum time in the queue. ``no_queue``: fail
        at once if nothing is free. ``expected``: likely length of the work. ``avoid``: resources that failed the work before.
        """
        given = {"branch": branch, "ref": ref, "tag": tag, "commit": commit}
        request = lease_pb2.LeaseRequest(
            request_id=request_id,
            holder=holder or self.settings.holder,
            selector=types_pb2.Selector(pool=pool, labels=dict(labels or {})),
            params={**dict(params or {}), **{name: value for name, value in given.items() if value}},
            priority=priority,
            no_queue=no_queue,
            tags=dict(tags or {}),
            work=work,
            avoid=list(avoid)[-16:],
        )
        for field, seconds in (("ttl", ttl), ("queue_for", wait), ("expected_duration", expected)):
            if seconds is not None:
                getattr(request, field).CopyFrom(span(seconds))
        return Lease(self, request)

    async def attempts(self, pool: str = "", *, retries: int = 2, **wanted: Any) -> AsyncIterator[Lease]:
        """Yields a lease for each attempt at one work: the first, and at most ``retries`` more while the lease breaks under it.

        ``async for attempt in client.attempts("copies"): async with attempt as lease: …``. A break ends the body and not the
        loop; the next attempt avoids the resource. What is not a break, and the last break, leave the loop as an exception.
        ``wanted``: as for ``lease``.
        """
        avoid = list(wanted.pop("avoid", ()))
        for attempt in range(retries + 1):
            lease = self.lease(pool, avoid=avoid, **wanted)
            # A break that is worth another attempt does not leave the body.
            lease.keeps_break = attempt < retries
            yield lease
            if lease.lost is None:
                return
            if not lease.lost.retry:
                raise lease.lost
            avoid += [lease.lost.resource_id] if lease.lost.resource_id else []

    async def request(self, request: lease_pb2.LeaseRequest) -> lease_pb2.LeaseResponse:
        """Asks for leases as the message says, and keeps none of them. Without a ``request_id`` one is chosen; while the broker is
        unavailable the same request is repeated, so that nothing is leased twice."""
        asked = lease_pb2.LeaseRequest()
        asked.CopyFrom(request)
        asked.request_id = asked.request_id or request_id()
        wait = asked.wait.ToTimedelta().total_seconds() if asked.HasField("wait") else 0.0
        end = time.monotonic() + wait

        async def once(timeout: float) -> lease_pb2.LeaseResponse:
            if wait:
                # The rest of the wait.
                asked.wait.CopyFrom(span(max(0.0, end - time.monotonic())))
            return await self.once("Lease", asked, lease_pb2.LeaseResponse, timeout)

        answer = await self.repeat(once, wait)
        # The wire carries a single lease once; here `leases` has all of them in any case.
        if not answer.leases:
            answer.leases.append(answer.lease)
        for lease in answer.leases:
            self.seen.note(lease.revision)
        return answer

    async def release(
        self,
        lease_id: str,
        outcome: types_pb2.Outcome = types_pb2.OUTCOME_ABANDONED,
        note: str = "",
        *,
        hold: Optional[float] = None,
        retry_for: Optional[float] = None,
    ) -> types_pb2.Lease:
        """Ends a lease and the others of its group. ``hold``: keep the resource as the work left it, for so many seconds."""
        request = lease_pb2.ReleaseRequest(lease_id=lease_id, outcome=outcome, note=_note(note))
        if hold is not None:
            request.hold.CopyFrom(span(hold))
        answer = await self.call("Release", request, lease_pb2.ReleaseResponse, retry_for=retry_for)
        self.seen.note(answer.lease.revision)
        return answer.lease

    async def renew(self, lease_id: str, ttl: Optional[float] = None) -> types_pb2.Lease:
        """Extends a lease once. A lease in its ``async with`` renews itself."""
        request = lease_pb2.RenewRequest(lease_id=lease_id)
        if ttl is not None:
            request.ttl.CopyFrom(span(ttl))
        answer = await self.call("Renew", request, lease_pb2.RenewResponse)
        self.seen.note(answer.lease.revision)
        return answer.lease

    async def report(self, lease_id: str, note: str = "", *, unreached: bool = False) -> types_pb2.Lease:
        """Has the resource checked while the holder works. ``unreached``: the holder cannot reach it from here."""
        request = lease_pb2.ReportRequest(lease_id=lease_id, note=_note(note), unreached=unreached)
        answer = await self.call("Report", request, lease_pb2.ReportResponse)
        self.seen.note(answer.lease.revision)
        return answer.lease

    # Reads: not older than any answer before.

    async def get(self, lease_id: str) -> types_pb2.Lease:
        """Returns one lease."""
        return (await self._read("Get", lease_pb2.GetRequest(lease_id=lease_id), lease_pb2.GetResponse)).lease

    async def list(self, request: Optional[lease_pb2.ListRequest] = None) -> AsyncIterator[types_pb2.Lease]:
        """Yields leases, page by page. Without a request: all live and waiting leases."""
        asked = lease_pb2.ListRequest()
        asked.CopyFrom(request or lease_pb2.ListRequest())
        while True:
            answer = await self._read("List", asked, lease_pb2.ListResponse)
            for lease in answer.leases:
                yield lease
            if not answer.next_page_token:
                return
            asked.page_token = answer.next_page_token

    async def explain(self, lease_id: str) -> lease_pb2.ExplainResponse:
        """Explains why a lease waits, or how it ended."""
        return await self._read("Explain", lease_pb2.ExplainRequest(lease_id=lease_id), lease_pb2.ExplainResponse)

    async def timeline(self, request: lease_pb2.TimelineRequest) -> lease_pb2.TimelineResponse:
        """Returns the history of a lease or a resource, oldest entry first."""
        return await self._read("Timeline", request, lease_pb2.TimelineResponse)

    async def server(self) -> lease_pb2.GetServerResponse:
        """Returns the version, limits and features of a server."""
        return await self.call("GetServer", lease_pb2.GetServerRequest(), lease_pb2.GetServerResponse)

    async def login(self, lease_id: str, public_key: str) -> lease_pb2.LoginResponse:
        """Has the broker sign a certificate over the holder's public key, for the host of its active lease."""
        request = lease_pb2.LoginRequest(lease_id=lease_id, public_key=public_key)
        return await self.call("Login", request, lease_pb2.LoginResponse)

    async def pools(self) -> Sequence[types_pb2.Pool]:
        """Returns the pools that the caller may see."""
        return (await self.admin("ListPools", admin_pb2.ListPoolsRequest(), admin_pb2.ListPoolsResponse)).pools

    async def who_am_i(self) -> trust_pb2.WhoAmIResponse:
        """Returns the caller as the server knows it."""
        return await self._repeated(
            "/wharfinger.v1.TrustService/WhoAmI", trust_pb2.WhoAmIRequest(), trust_pb2.WhoAmIResponse
        )

    def watch(self, request: lease_pb2.WatchRequest) -> AsyncIterator[Watched]:
        """Watches leases. The iterator resumes by itself, and raises ``CallError`` for what a repetition does not mend."""
        return watch(self.transport, self.seen, request)

    # Any method.

    async def call(
        self, method: str, request: Message, response: Type[T], *, retry_for: Optional[float] = None
    ) -> T:
        """Calls a method of ``LeaseService``, and repeats it while the broker is unavailable. Raises ``CallError``."""
        return await self._repeated(f"/wharfinger.v1.LeaseService/{method}", request, response, retry_for)

    async def admin(self, method: str, request: Message, response: Type[T]) -> T:
        """Calls a method of ``AdminService``, the operator's service, and repeats it as ``call`` does."""
        return await self._repeated(f"/wharfinger.v1.AdminService/{method}", request, response)

    async def once(self, method: str, request: Message, response: Type[T], timeout: float) -> T:
        """Calls a method of ``LeaseService`` with one try."""
        return await self.transport.unary(f"/wharfinger.v1.LeaseService/{method}", request, response, timeout)

    async def _repeated(self, path: str, request: Message, response: Type[T], retry_for: Optional[float] = None) -> T:
        return await self.repeat(
            lambda timeout: self.transport.unary(path, request, response, timeout), retry_for=retry_for
        )

    async def repeat(
        self, call: Callable[[float], Awaitable[T]], wait: float = 0.0, *, retry_for: Optional[float] = None
    ) -> T:
        """Repeats a call until it succeeds, fails for good, or its time is over. ``wait``: what it asks for, in seconds."""
        for_ = self.settings.retry_for if retry_for is None else retry_for
        give_up = time.monotonic() + wait + for_
        backoff = Backoff(0.1, 3.0)
        tries = 0
        while True:
            tries += 1
            try:
                return await call(wait + self.transport.call_timeout)
            except Unavailable as error:
                pause = backoff.wait(error.retry_after)
                # A server that hangs takes all the time; the other servers are asked all the same.
                patient = time.monotonic() + pause <= give_up or (tries < self.transport.count and for_ > 0)
                if not patient:
                    raise
            await asyncio.sleep(pause)

    async def _read(self, method: str, request: Any, response: Type[T]) -> T:
        """Reads a state that is not older than any answer before. Servers whose database was restored never reached it."""
        asked = type(request)()
        asked.CopyFrom(request)
        asked.min_revision = max(request.min_revision, self.seen.latest)
        try:
            answer = await self.call(method, asked, response)
        except Resync:
            if asked.min_revision == request.min_revision:
                raise
            self.seen.forget()
            asked.min_revision = request.min_revision
            answer = await self.call(method, asked, response)
        self.seen.note(int(getattr(answer, "revision", 0)))
        return answer


def _note(text: str) -> str:
    """A note of at most 4,096 bytes."""
    return text.encode()[:4096].decode(errors="ignore")

