"""A lease in its ``async with``: it renews itself, and a break cancels the body.

The rules are those of ``asyncio.timeout``: the task is cancelled, and at the exit *our* cancellation, told by the count of cancel
requests, becomes ``LeaseBroken``. A cancel from outside stays one.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Coroutine, Mapping, Optional, Type

import grpc

from wharfinger.v1 import lease_pb2, types_pb2

from . import host
from .backoff import request_id
from .errors import (
    CallError,
    CapacityError,
    HostError,
    LeaseBroken,
    NotFound,
    RequestError,
    StateError,
    Unavailable,
    WharfingerError,
)
from .keeper import Keeper, Status, is_over, state_name

if TYPE_CHECKING:
    from .client import Client

_log = logging.getLogger("wharfinger")

_ANEW = 5
"""Maximum number of leases that break before their work begins."""


class Lease:
    """One lease. ``async with`` asks for it, waits until it is active, renews and watches it, and releases it.

    The release has outcome OK, FAILED with the exception's text if the body raises, and ABANDONED if the body is cancelled from
    outside or interrupted. Set ``outcome`` to release with another one. If the lease breaks, the body is cancelled, and
    ``LeaseBroken`` is raised in its place.
    """

    def __init__(self, client: "Client", request: lease_pb2.LeaseRequest) -> None:
        self.client = client
        self.request = request
        """What is asked for."""
        self.outcome: Optional[types_pb2.Outcome] = None
        """Outcome of the release. ``None``: by how the body ends."""
        self.note = ""
        """Note of the release, for the audit trail."""
        self.hold: Optional[float] = None
        """Seconds for which the resource is kept as the work left it."""
        self.keeps_break = False
        """Whether a break ends the body without an exception; ``lost`` has it. ``Client.attempts`` sets it."""
        self.lost: Optional[LeaseBroken] = None
        """Why the lease was lost."""
        self.released: Optional[types_pb2.Lease] = None
        """The lease after its release."""
        self._keeper: Optional[Keeper] = None
        self._task: "Optional[asyncio.Task[Any]]" = None
        self._in_body = False
        self._cancelled = False
        self._cancelling = 0

    # What is leased.

    @property
    def message(self) -> types_pb2.Lease:
        """Last known state of the lease."""
        if self._keeper is None:
            raise RuntimeError("the lease has not been asked for: use `async with`")
        return self._keeper.lease

    @property
    def id(self) -> str:
        """Id of the lease."""
        return self.message.id

    @property
    def status(self) -> Status:
        """Status of the lease."""
        return Status.WAITING if self._keeper is None else self._keeper.status

    @property
    def pool(self) -> str:
        """Pool that serves it."""
        return self.message.pool

    @property
    def resource_id(self) -> str:
        """Id of the resource, also after the end of the lease."""
        return self.message.resource_id if self._keeper is None else self._keeper.resource_id

    @property
    def access(self) -> types_pb2.Access:
        """How to reach the resource."""
        return self.message.access

    @property
    def path(self) -> str:
        """Absolute path of the working copy, or of the host's scratch directory."""
        return self.message.access.path

    @property
    def token(self) -> int:
        """Fencing token: grows with every lease of the slot. Pass it to what the work writes to, and refuse smaller ones there."""
        return self.message.fencing_token

    @property
    def ends_at(self) -> Optional[float]:
        """Announced end of the resource, in seconds since the Unix epoch."""
        message = self.message
        return message.ends_at.seconds + message.ends_at.nanos / 1e9 if message.HasField("ends_at") else None

    @property
    def doubt(self) -> str:
        """Why the resource is in doubt, in words. Empty: it is in no doubt."""
        return self.message.doubt.detail if self.message.HasField("doubt") else ""

    @property
    def finding(self) -> types_pb2.Finding:
        """Whose fault a failure was, as far as it is known after the release."""
        return (self.released or self.message).finding

    def env(self) -> dict[str, str]:
        """Returns the ``WHARFINGER_*`` variables of a command that runs under the lease."""
        return host.variables(self.message, self.client.settings.server)

    # The work.

    async def run(
        self,
        *argv: str,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        check: bool = True,
        capture: bool = False,
        input: Optional[bytes] = None,
        identity: Optional[str] = None,
        allow_proxy_command: bool = False,
    ) -> host.Completed:
        """Runs a command on the leased host, in the leased directory, behind the fence.

        ``cwd``: relative to the leased directory. ``check``: raise ``CommandFailed`` if it does not end with 0. ``capture``:
        return its output, instead of passing it on. ``identity``: file of a private key, where the lease brings none. Ends with
        the body: the command is killed.
        """
        started = await self.start(
            *argv,
            env=env,
            cwd=cwd,
            capture=capture,
            input=input is not None,
            identity=identity,
            allow_proxy_command=allow_proxy_command,
        )
        async with started as process:
            return await process.complete(input, check=check)

    async def start(
        self,
        *argv: str,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        capture: bool = False,
        input: bool = False,
        identity: Optional[str] = None,
        allow_proxy_command: bool = False,
    ) -> host.Running:
        """Starts a command as ``run`` does. The end of its ``async with`` kills it."""
        way = await host.way(self, identity=identity, allow_proxy_command=allow_proxy_command)
        variables = {**self.env(), **(env or {})}
        return await host.start(way, self.message, argv, variables, cwd, capture=capture, input=input, of=self)

    async def report(self, note: str = "", *, unreached: bool = False) -> None:
        """Has the resource checked while the work goes on. The lease breaks if the check finds it unfit."""
        self.take(await self.client.report(self.id, note, unreached=unreached))

    def take(self, lease: types_pb2.Lease) -> None:
        """Takes a state of the lease from another answer."""
        if self._keeper is not None:
            self._keeper.news(lease)

    @property
    def is_lost(self) -> bool:
        """Whether the lease is lost, also before the body has heard of it."""
        return self._keeper is not None and self._keeper.lost is not None

    async def until_checked(self, note: str, *, unreached: bool = False) -> None:
        """Reports a failure, and waits until the broker has checked the resource, at most for ``Settings.check_for`` seconds. The
        lease breaks if the check finds the resource unfit."""
        keeper, limit = self._keeper, self.client.settings.check_for
        if keeper is None or limit <= 0:
            return
        try:
            async with asyncio.timeout(limit):
                keeper.news(await self.client.report(keeper.id, note, unreached=unreached))
                while keeper.lost is None and keeper.lease.HasField("doubt"):
                    await keeper.changed()
        except TimeoutError:
            _log.info("lease %s: its resource was not checked within %g s", keeper.id, limit)
        except CallError as failed:
            _log.debug("lease %s: the failure is not reported: %s", keeper.id, failed)

    async def verdict(self, seconds: float = 3.0) -> types_pb2.Finding:
        """Returns whose fault a failure was, after the release; at most for these seconds it waits for a check under way."""
        lease = self.released or self.message
        request = lease_pb2.WatchRequest(lease_ids=[lease.id])
        try:
            async with asyncio.timeout(seconds):
                if lease.finding.fault == types_pb2.Finding.FAULT_OPEN:
                    async for event in self.client.watch(request):
                        if event.lease is not None and event.lease.finding.fault != types_pb2.Finding.FAULT_OPEN:
                            self.released = event.lease
                            break
        except (TimeoutError, CallError):
            pass
        return self.finding

    async def changed(self) -> None:
        """Waits for the next change of the lease."""
        if self._keeper is not None and self._keeper.lost is None:
            await self._keeper.changed()

    def check(self) -> None:
        """Raises ``LeaseBroken`` if the lease is lost."""
        if self._keeper is not None and self._keeper.lost is not None:
            raise self._keeper.lost

    # The life.

    async def __aenter__(self) -> "Lease":
        if self._keeper is not None:
            raise RuntimeError("a lease is entered once")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lease needs a task")
        # The same request again after a cancel is the same lease: so it can be released.
        self.request.request_id = self.request.request_id or request_id()
        try:
            self._keeper = await self._granted()
        except BaseException as error:
            if self._keeper is not None:
                self._keeper.stop()
            if not isinstance(error, WharfingerError):
                await self._finish(self._give_up())
            raise
        self._task, self._cancelling = task, task.cancelling()
        self._in_body = True
        self._keeper.on_change.append(self._on_change)
        self._on_change()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> Optional[bool]:
        keeper, task = self._keeper, self._task
        assert keeper is not None and task is not None
        # From here on a break cancels nothing.
        self._in_body = False
        outside = False
        if self._cancelled:
            outside = task.uncancel() > self._cancelling
        elif isinstance(error, asyncio.CancelledError):
            outside = True
        try:
            if outside or (error is not None and not isinstance(error, (Exception, asyncio.CancelledError))):
                # Cut short by its owner.
                if keeper.lost is None:
                    await self._finish(self._release(types_pb2.OUTCOME_ABANDONED, _words(error)))
                self.lost = keeper.lost
                return None
            ours = isinstance(error, WharfingerError)
            if keeper.lost is None and error is not None and self.outcome is None:
                if isinstance(error, HostError):
                    await self.until_checked(_words(error), unreached=True)
                elif not ours:
                    await self.until_checked(_words(error))
            if keeper.lost is not None:
                self.lost = keeper.lost
                if self.keeps_break and keeper.lost.retry:
                    return True
                if error is keeper.lost:
                    return None
                raise keeper.lost from error
            outcome = types_pb2.OUTCOME_OK
            if error is not None:
                # What the broker or another lease refused is not the work's failure.
                outcome = types_pb2.OUTCOME_ABANDONED if ours else types_pb2.OUTCOME_FAILED
            await self._finish(self._release(outcome, "" if error is None else _words(error)))
            return None
        finally:
            keeper.stop()

    def _on_change(self) -> None:
        if not self.is_lost or self._task is None:
            return
        if asyncio.current_task() is self._task:
            # The body has read it itself. A cancel of a task that runs would reach it after the body.
            asyncio.get_running_loop().call_soon(self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._in_body and not self._cancelled and self._task is not None:
            self._cancelled = True
            self._task.cancel()

    async def _granted(self) -> Keeper:
        """Asks until a lease is active. One that breaks before the work begins is asked for anew."""
        for _ in range(_ANEW):
            answer = await self.client.request(self.request)
            self._keeper = keeper = Keeper(self.client, answer.leases[0])
            while keeper.status is Status.WAITING:
                await keeper.changed()
            if keeper.lost is None:
                return keeper
            if keeper.lost.why == "ended" and keeper.lease.state != types_pb2.LEASE_STATE_BROKEN:
                raise _not_granted(keeper)
            self.request.request_id = request_id()
        assert keeper.lost is not None
        raise keeper.lost

    async def _release(self, outcome: types_pb2.Outcome, note: str) -> None:
        keeper = self._keeper
        assert keeper is not None
        try:
            self.released = await self.client.release(
                keeper.id,
                outcome if self.outcome is None else self.outcome,
                self.note or note,
                hold=self.hold,
                retry_for=self.client.settings.release_for,
            )
        except (StateError, NotFound) as error:
            # It ended in the same moment in another way.
            _log.debug("lease %s is not released: %s", keeper.id, error)
        except WharfingerError as error:
            _log.warning("lease %s was not released, and ends by its TTL: %s", keeper.id, error)

    async def _give_up(self) -> None:
        """Ends a request whose holder has gone. The answer may have been lost: the same request gives the same lease."""
        try:
            if self._keeper is not None:
                lease = self._keeper.lease
            else:
                lease = (await self.client.once("Lease", self.request, lease_pb2.LeaseResponse, 5.0)).lease
            if not is_over(lease):
                await self.client.release(lease.id, types_pb2.OUTCOME_ABANDONED, "its holder gave up", retry_for=2.0)
        except WharfingerError as error:
            _log.warning("a request of a holder that gave up is not withdrawn: %s", error)

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it to its end, also if this task is cancelled meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        cancelled: Optional[asyncio.CancelledError] = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                if task.cancelled():
                    raise
                cancelled = error
        task.result()
        if cancelled is not None:
            raise cancelled


def _words(error: Optional[BaseException]) -> str:
    """An exception as a note."""
    if error is None:
        return ""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _not_granted(keeper: Keeper) -> WharfingerError:
    """The error for a lease that ended before it was active."""
    lease = keeper.lease
    text = f"lease {lease.id} is {state_name(lease)}: {lease.fail_detail or lease.trouble or 'it was never active'}"
    kinds: dict[int, tuple[Type[CallError], grpc.StatusCode, str]] = {
        types_pb2.FAIL_REASON_WAIT_DEADLINE: (CapacityError, grpc.StatusCode.RESOURCE_EXHAUSTED, "WAIT_DEADLINE"),
        types_pb2.FAIL_REASON_REQUEST: (RequestError, grpc.StatusCode.INVALID_ARGUMENT, lease.fail_code),
        types_pb2.FAIL_REASON_BUDGET_SPENT: (Unavailable, grpc.StatusCode.UNAVAILABLE, "BUDGET_SPENT"),
    }
    other = (StateError, grpc.StatusCode.FAILED_PRECONDITION, lease.fail_code)
    kind, code, reason = kinds.get(lease.fail_reason, other)
    return kind(code, text, reason=reason or None)


__all__ = ["Lease"]
