"""The client for programs without asyncio: a loop of asyncio in a thread keeps the leases.

A break throws no exception into the thread of the body: ``Lease.broken`` is set, ``Lease.run`` ends its command, ``Lease.check``
raises ``LeaseBroken``, and so does the end of the ``with``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from types import TracebackType
from typing import Any, Coroutine, Iterator, Optional, Type, TypeVar

from wharfinger.v1 import lease_pb2, types_pb2

from . import client as aio
from .errors import ForkError, LeaseBroken
from .host import Completed
from .keeper import Status
from .lease import Lease as AioLease
from .settings import Settings

T = TypeVar("T")


class Client:
    """A client of a broker. Its thread starts at the first call. The arguments are those of ``wharfinger.Client``."""

    def __init__(self, server: Optional[str] = None, *, settings: Optional[Settings] = None, **given: Any) -> None:
        self.settings = settings if settings is not None else Settings.from_environment(server=server, **given)
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._client: Optional[aio.Client] = None
        self._process = 0

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    @property
    def aio(self) -> aio.Client:
        """The client for asyncio that does the work, within the thread's loop."""
        self._start()
        assert self._client is not None
        return self._client

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and self._process != os.getpid():
            raise ForkError("this client has its thread in the process before a fork: make another one after the fork")
        with self._lock:
            if self._loop is not None:
                return self._loop
            loop = asyncio.new_event_loop()
            self._client = aio.Client(settings=self.settings)
            self._thread = threading.Thread(target=_forever, args=(loop,), name="wharfinger", daemon=True)
            self._loop, self._process = loop, os.getpid()
            self._thread.start()
            return loop

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Does it in the thread's loop, and waits for its end. An interrupt cancels it."""
        try:
            loop = self._start()
        except BaseException:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                concurrent.futures.wait([future], timeout=10)
            raise

    def close(self) -> None:
        """Ends the thread and the connections. Releases nothing."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or self._process != os.getpid():
            return
        assert self._client is not None
        self.wait(self._client.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        self._loop = self._thread = self._client = None

    def lease(self, pool: str = "", **wanted: Any) -> "Lease":
        """Returns one lease, which is asked for at its ``with``. The arguments are those of ``wharfinger.Client.lease``."""
        return Lease(self, self.aio.lease(pool, **wanted))

    def attempts(self, pool: str = "", *, retries: int = 2, **wanted: Any) -> Iterator["Lease"]:
        """Yields a lease for each attempt at one work: see ``wharfinger.Client.attempts``."""
        avoid = list(wanted.pop("avoid", ()))
        for attempt in range(retries + 1):
            lease = self.lease(pool, avoid=avoid, **wanted)
            lease.aio.keeps_break = attempt < retries
            yield lease
            lost = lease.aio.lost
            if lost is None:
                return
            if not lost.retry:
                raise lost
            avoid += [lost.resource_id] if lost.resource_id else []

    def request(self, request: lease_pb2.LeaseRequest) -> lease_pb2.LeaseResponse:
        """Asks for leases as the message says, and keeps none of them."""
        return self.wait(self.aio.request(request))

    def release(
        self,
        lease_id: str,
        outcome: types_pb2.Outcome = types_pb2.OUTCOME_ABANDONED,
        note: str = "",
        *,
        hold: Optional[float] = None,
    ) -> types_pb2.Lease:
        """Ends a lease and the others of its group."""
        return self.wait(self.aio.release(lease_id, outcome, note, hold=hold))

    def renew(self, lease_id: str, ttl: Optional[float] = None) -> types_pb2.Lease:
        """Extends a lease once."""
        return self.wait(self.aio.renew(lease_id, ttl))

    def report(self, lease_id: str, note: str = "", *, unreached: bool = False) -> types_pb2.Lease:
        """Has the resource checked while the holder works."""
        return self.wait(self.aio.report(lease_id, note, unreached=unreached))

    def get(self, lease_id: str) -> types_pb2.Lease:
        """Returns one lease."""
        return self.wait(self.aio.get(lease_id))

    def list(self, request: Optional[lease_pb2.ListRequest] = None) -> "list[types_pb2.Lease]":
        """Returns leases of all pages."""

        async def all() -> "list[types_pb2.Lease]":
            return [lease async for lease in self.aio.list(request)]

        return self.wait(all())

    def explain(self, lease_id: str) -> lease_pb2.ExplainResponse:
        """Explains why a lease waits, or how it ended."""
        return self.wait(self.aio.explain(lease_id))

    def server(self) -> lease_pb2.GetServerResponse:
        """Returns the version, limits and features of a server."""
        return self.wait(self.aio.server())


class Lease:
    """One lease. ``with`` asks for it, waits until it is active, keeps it, and releases it: see ``wharfinger.Lease``."""

    def __init__(self, client: Client, lease: AioLease) -> None:
        self.aio = lease
        """The lease within the thread's loop, with its properties."""
        self.broken = threading.Event()
        """Set when the lease is lost."""
        self._client = client
        self._ended: Optional[concurrent.futures.Future[None]] = None
        self._end: Optional[asyncio.Event] = None
        self._error: Optional[BaseException] = None
        self._commands: set[concurrent.futures.Future[Completed]] = set()

    @property
    def id(self) -> str:
        """Id of the lease."""
        return self.aio.id

    @property
    def message(self) -> types_pb2.Lease:
        """Last known state of the lease."""
        return self.aio.message

    @property
    def status(self) -> Status:
        """Status of the lease."""
        return self.aio.status

    @property
    def path(self) -> str:
        """Absolute path of the working copy, or of the host's scratch directory."""
        return self.aio.path

    @property
    def resource_id(self) -> str:
        """Id of the resource, also after the end of the lease."""
        return self.aio.resource_id

    @property
    def token(self) -> int:
        """Fencing token."""
        return self.aio.token

    @property
    def lost(self) -> Optional[LeaseBroken]:
        """Why the lease was lost."""
        return self.aio.lost

    def env(self) -> dict[str, str]:
        """Returns the ``WHARFINGER_*`` variables of a command that runs under the lease."""
        return self.aio.env()

    def check(self) -> None:
        """Raises ``LeaseBroken`` if the lease is lost."""
        self.aio.check()

    def run(self, *argv: str, **how: Any) -> Completed:
        """Runs a command on the leased host: see ``wharfinger.Lease.run``. A break kills it, and raises ``LeaseBroken``."""

        async def work() -> Completed:
            task = asyncio.current_task()
            assert task is not None
            running = self._running
            running.add(task)
            try:
                return await self.aio.run(*argv, **how)
            except asyncio.CancelledError:
                self.aio.check()
                raise
            finally:
                running.discard(task)

        self.check()
        return self._client.wait(work())

    def report(self, note: str = "", *, unreached: bool = False) -> None:
        """Has the resource checked while the work goes on."""
        self._client.wait(self.aio.report(note, unreached=unreached))

    def __enter__(self) -> "Lease":
        loop = self._client._start()
        entered: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._running: "set[asyncio.Task[Any]]" = set()

        async def life() -> None:
            self._end = asyncio.Event()
            try:
                async with self.aio:
                    entered.set_result(None)
                    try:
                        await self._end.wait()
                    except asyncio.CancelledError:
                        # The lease broke: the body hears of it, and goes on to its end.
                        self.broken.set()
                        for task in self._running.copy():
                            task.cancel()
                        if not self.aio.is_lost:
                            raise
                    if self._error is not None:
                        raise self._error
            except BaseException as error:
                if not entered.done():
                    entered.set_exception(error)
                    return
                raise

        self._ended = asyncio.run_coroutine_threadsafe(life(), loop)
        try:
            entered.result()
        except BaseException:
            self._ended.cancel()
            concurrent.futures.wait([self._ended], timeout=10)
            raise
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> Optional[bool]:
        loop, ended = self._client._loop, self._ended
        assert loop is not None and ended is not None
        # An interrupt of this thread is none of the loop's.
        interrupted = error is not None and not isinstance(error, Exception)
        if interrupted:
            self.aio.outcome = types_pb2.OUTCOME_ABANDONED if self.aio.outcome is None else self.aio.outcome
        self._error = None if interrupted else error

        def end() -> None:
            if self._end is not None:
                self._end.set()

        loop.call_soon_threadsafe(end)
        try:
            ended.result()
        except LeaseBroken:
            if interrupted:
                return None
            raise
        except BaseException as raised:
            if raised is error:
                return None
            raise
        return self.aio.lost is not None and self.aio.keeps_break and not interrupted


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
