"""A latent worker of Buildbot: its worker runs on a leased host, and a build whose host dies is restarted by Buildbot itself.

    from wharfinger.buildbot import WharfingerLatentWorker
    c["workers"] = [WharfingerLatentWorker("leased", pool="hosts", labels={"os": "linux"}, master_host="ci.example.org")]

The hosts need Python with ``buildbot-worker``. While the build runs the lease renews itself; if it breaks, the worker is disconnected, and
the build ends as RETRY: without that, Buildbot waits for a silent host until its keepalive ends, an hour by default.
"""

from __future__ import annotations

import asyncio
from typing import Any, Coroutine, Mapping, Optional, Sequence, TypeVar

from buildbot.interfaces import LatentWorkerCannotSubstantiate, LatentWorkerFailedToSubstantiate
from buildbot.process.buildstep import BuildStep
from buildbot.process.results import FAILURE, RETRY, SKIPPED, SUCCESS, WARNINGS
from buildbot.worker.latent import AbstractLatentWorker, States
from twisted.internet import defer, threads
from twisted.python import log

from . import sync
from .errors import LeaseBroken, NotFound, RequestError, StateError, WharfingerError
from .lease import Lease
from .v1 import types_pb2

T = TypeVar("T")

BOOT = """
import os, sys
from twisted.internet import reactor
from twisted.python import log
from buildbot_worker.bot import Worker
host, port, name, basedir = sys.argv[1:5]
password = sys.stdin.readline().rstrip("\\n")
os.makedirs(basedir, exist_ok=True)
log.startLogging(open(os.path.join(basedir, "twistd.log"), "a"))
worker = Worker(host, int(port), name, password, basedir, keepalive=60, maxRetries=5, delete_leftover_dirs=True)
worker.startService()
reactor.addSystemEventTrigger("before", "shutdown", worker.stopService)
reactor.run()
"""
"""Starts a worker in the foreground. Its password comes on standard input, where no list of processes shows it."""

_FAULT = types_pb2.Finding.Fault


class _Use:
    """One lease, from its request to its release, in the loop of the client."""

    def __init__(self, lease: Lease, argv: Sequence[str], password: str, identity: Optional[str]) -> None:
        self.lease = lease
        self._identity = identity
        self._argv, self._password = argv, password
        self._task: "Optional[asyncio.Task[Any]]" = None
        self.started: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        self._end = asyncio.Event()
        self.ended = ""
        """Why it has ended, if it has."""

    def begin(self) -> None:
        """Asks for the lease, and starts the worker on the host."""
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        try:
            async with self.lease as lease:
                async with await lease.start(*self._argv, input=True, identity=self._identity) as running:
                    pipe = running.process.stdin
                    assert pipe is not None
                    pipe.write(f"{self._password}\n".encode())
                    pipe.close()
                    self.started.set_result(None)
                    dead = asyncio.ensure_future(running.process.wait())
                    end = asyncio.ensure_future(self._end.wait())
                    try:
                        await asyncio.wait((dead, end), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        dead.cancel()
                        end.cancel()
                    if not self._end.is_set():
                        self.ended = f"the worker's process ended with {running.process.returncode}"
                        # The lease goes on until Buildbot ends it: a build may still be finishing.
                        await self._end.wait()
        except BaseException as error:
            self.ended = str(error) or type(error).__name__
            if not self.started.done():
                self.started.set_exception(error if isinstance(error, Exception) else WharfingerError("cancelled"))
                # Somebody else may have stopped to wait.
                self.started.exception()
            elif not isinstance(error, (WharfingerError, asyncio.CancelledError)):
                log.err(error, "wharfinger: a lease ended by a mistake")
        finally:
            self.ended = self.ended or "the lease is released"

    async def checked(self, note: str, *, unreached: bool = False) -> Optional[LeaseBroken]:
        """Has the resource checked. Returns the loss of the lease, if it is lost."""
        await self.lease.until_checked(note, unreached=unreached)
        keeper = self.lease._keeper
        return keeper.lost if keeper is not None else None

    async def end(self, outcome: types_pb2.Outcome, note: str) -> types_pb2.Finding:
        """Ends the worker, releases, and finds out whose fault a failure was."""
        self.lease.outcome, self.lease.note = outcome, note
        if self._task is None:
            return types_pb2.Finding()
        if self.started.done():
            self._end.set()
        else:
            self._task.cancel()
        await asyncio.wait((self._task,), timeout=30)
        if outcome == types_pb2.OUTCOME_FAILED and self.lease.lost is None and self.lease.released is not None:
            return await self.lease.verdict()
        return types_pb2.Finding()


class WharfingerLatentWorker(AbstractLatentWorker):
    """A worker on a leased host, for one build; with ``build_wait_timeout`` above 0, for the builds that follow within so many seconds.

    ``pool``, ``labels``, ``params``, ``ttl``, ``wait``, ``expected``, ``priority``: as for ``wharfinger.Client.lease``. ``server`` and
    ``settings``: those of ``wharfinger.Client``; the environment of the master if absent. ``master_host``, ``master_port``: where the
    hosts reach the master. ``python``: an interpreter on the hosts that has buildbot-worker. ``basedir``: the worker's, relative
    to the leased directory; each worker has a directory of its own in it. ``identity``: file of a private key, where leases bring none.

    Properties of builds: ``wharfinger_lease``, ``wharfinger_resource``, ``wharfinger_path``; ``whose_fault`` of one that failed or was lost.
    """

    def checkConfig(self, name: str, password: Optional[str] = None, **kwargs: Any) -> None:
        """Checks the arguments."""
        kwargs.setdefault("build_wait_timeout", 0)
        wanted = _split(kwargs)
        if not (wanted["pool"] or wanted["labels"]):
            raise ValueError(f"worker {name}: give a pool, labels, or both")
        super().checkConfig(name, password, **kwargs)

    def reconfigService(self, name: str, password: Optional[str] = None, **kwargs: Any) -> Any:
        """Takes the arguments."""
        return defer.ensureDeferred(self._reconfig_service(name, password, **kwargs))

    async def _reconfig_service(self, name: str, password: Optional[str] = None, **kwargs: Any) -> None:
        kwargs.setdefault("build_wait_timeout", 0)
        # A lease that breaks before the worker attaches is noticed within a second.
        kwargs.setdefault("check_instance_interval", 1)
        self._wanted = _split(kwargs)
        if password is None:
            password = self.getRandomPass()
        await super().reconfigService(name, password, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client: Optional[sync.Client] = None
        self._use: Optional[_Use] = None
        self._builds: list[Any] = []
        self._lost_on: list[str] = []

    # Between the two loops.

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> Any:
        """Does it in the loop of the client: a Deferred of its result."""
        if self._client is None:
            wanted = self._wanted
            # At the first use: the master may have forked before.
            self._client = sync.Client(wanted["server"], settings=wanted["settings"])
        loop = self._client._start()
        done: Any = defer.Deferred()
        future = asyncio.run_coroutine_threadsafe(work, loop)

        def fire(_: Any) -> None:
            error = future.exception()
            if error is not None:
                done.errback(error)
            else:
                done.callback(future.result())

        future.add_done_callback(lambda ended: self.master.reactor.callFromThread(fire, ended))
        return done

    # What Buildbot asks for.

    def start_instance(self, build: Any) -> Any:
        """Leases a host, and starts the worker there."""
        return defer.ensureDeferred(self._start_instance(build))

    async def _start_instance(self, build: Any) -> bool:
        wanted = self._wanted
        self._builds = [build]
        builder, revision = build.builder.name, build.getProperty("got_revision") or build.getProperty("revision")
        url = await build.getUrl()
        host, port = wanted["master_host"], wanted["master_port"] or _port(self.master)
        name = self.name

        async def begin() -> _Use:
            assert self._client is not None
            lease = self._client.aio.lease(
                wanted["pool"],
                labels=wanted["labels"],
                params=wanted["params"],
                ttl=wanted["ttl"],
                wait=wanted["wait"],
                expected=wanted["expected"],
                priority=wanted["priority"],
                work=wanted["work"] or (f"{builder}@{revision}" if revision else ""),
                holder=url,
                tags={"buildbot.worker": name, "buildbot.builder": builder},
                avoid=self._lost_on,
            )
            # The leases of other slots are in the same directory of a host.
            basedir = f"{wanted['basedir']}/{name}"
            argv = [wanted["python"], "-c", BOOT, host, str(port), name, basedir]
            use = _Use(lease, argv, self.password, wanted["identity"])
            use.begin()
            return use

        try:
            use = self._use = await self._in_loop(begin())
            await self._in_loop(_waited(use.started))
        except (RequestError, NotFound, StateError) as error:
            self._use = None
            raise LatentWorkerCannotSubstantiate(f"wharfinger: {error}") from error
        except WharfingerError as error:
            self._use = None
            raise LatentWorkerFailedToSubstantiate(self.name, f"wharfinger: {error}") from error
        lease = use.lease
        for key, value in (("lease", lease.id), ("resource", lease.resource_id), ("path", lease.path)):
            build.setProperty(f"wharfinger_{key}", value, "wharfinger")
        await self._in_loop(self._listen(use))
        return True

    async def _listen(self, use: _Use) -> None:
        """Has a break told to Buildbot's own thread."""
        keeper = use.lease._keeper
        assert keeper is not None

        def changed() -> None:
            if keeper.lost is not None:
                self.master.reactor.callFromThread(self._broken, use, keeper.lost)

        keeper.on_change.append(changed)
        changed()

    def _broken(self, use: _Use, lost: LeaseBroken) -> None:
        """The lease is lost: the build is to be restarted elsewhere, now."""
        if use is not self._use or use.lease.lost is lost and not self._builds:
            return
        self._note(lost, self._builds)
        if self.conn is not None:
            # The build hears of it as of any lost connection: lostRemote, and RETRY.
            self.conn.loseConnection()

    def _note(self, lost: LeaseBroken, builds: Sequence[Any]) -> None:
        """Notes a loss: its builds say whose fault it was, and the next lease avoids the resource."""
        log.msg(f"wharfinger: worker {self.name}: {lost}")
        self._lost_on = [*self._lost_on, lost.resource_id][-16:]
        for build in builds:
            self._set_fault(build, lost.fault)

    def check_lease(self, note: str) -> Any:
        """Has the resource checked: a Deferred of the loss of the lease, or of None."""
        return self._in_loop(self._use.checked(note)) if self._use is not None else defer.succeed(None)

    def _set_fault(self, build: Any, fault: str) -> None:
        if build.buildid is not None and fault:
            done = self.master.data.updates.setBuildProperty(build.buildid, "whose_fault", fault, "wharfinger")
            done.addErrback(log.err, "while the fault is noted")

    def check_instance(self) -> tuple[bool, str]:
        """Whether the worker may still attach."""
        return (True, "") if self._use is not None and not self._use.ended else (False, self._use.ended if self._use else "")

    def buildStarted(self, wfb: Any) -> None:
        """Notes the builds of the lease."""
        for build in wfb.builder.building:
            if build.workerforbuilder is wfb and build not in self._builds:
                self._builds.append(build)
        super().buildStarted(wfb)

    def insubstantiate(self, fast: bool = False, force_substantiation_build: Any = None) -> Any:
        """Ends the lease. One that is waited for is given up first: it keeps the lock that the end waits for."""
        if self.state is States.SUBSTANTIATING_STARTING and self._use is not None:
            use = self._use
            self._in_loop(_given_up(use)).addErrback(log.err, "while a request is given up")
        return super().insubstantiate(fast, force_substantiation_build)

    def stop_instance(self, fast: bool = False) -> Any:
        """Ends the worker, and releases the lease with the outcome of its builds."""
        return defer.ensureDeferred(self._stop_instance(fast))

    async def _stop_instance(self, fast: bool = False) -> bool:
        use, builds = self._use, self._builds
        self._use, self._builds = None, []
        if use is None:
            return True
        outcome, note = _outcome(builds)
        if not fast and any(build.results == RETRY for build in builds) and not use.lease.is_lost:
            # The worker has gone, and the broker has not said why: the host may have gone too.
            lost = await self._in_loop(use.checked(note, unreached=True))
            if lost is not None:
                self._note(lost, builds)
        finding = await self._in_loop(use.end(outcome, note))
        if finding.fault:
            for build in builds:
                self._set_fault(build, _FAULT.Name(finding.fault).removeprefix("FAULT_"))
        if use.lease.lost is None:
            self._lost_on = []
        return True

    def stopService(self) -> Any:
        """Ends the lease and the connections."""
        return defer.ensureDeferred(self._stop_service())

    async def _stop_service(self) -> None:
        await super().stopService()
        client, self._client = self._client, None
        if client is not None:
            await self._closed(client)

    def _closed(self, client: sync.Client) -> Any:
        return threads.deferToThread(client.close)


class CheckLease(BuildStep):
    """The last step of a build. If the build has failed its resource is checked; on one that is unfit the build ends as RETRY.

    Without this step such a build is a FAILURE, and its ``whose_fault`` is RESOURCE.
    """

    def __init__(self, **kwargs: Any) -> None:
        defaults = {"name": "check the lease", "alwaysRun": True, "doStepIf": _has_failed, "hideStepIf": _is_skipped}
        super().__init__(**{**defaults, **kwargs})

    def run(self) -> Any:
        """Checks."""
        return defer.ensureDeferred(self._run())

    async def _run(self) -> int:
        if isinstance(self.worker, WharfingerLatentWorker):
            lost = await self.worker.check_lease(f"build {self.build.buildid} of {self.build.builder.name}: failed")
            if lost is not None and lost.retry:
                return int(RETRY)
        return int(SUCCESS)


def _has_failed(step: Any) -> bool:
    return bool(step.build.results == FAILURE)


def _is_skipped(results: Any, _step: Any) -> bool:
    return bool(results == SKIPPED)


async def _waited(started: "asyncio.Future[None]") -> None:
    await started


async def _given_up(use: _Use) -> None:
    if not use.started.done() and use._task is not None:
        use._task.cancel()


def _split(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Takes the arguments of this worker out of those of Buildbot."""
    defaults: Mapping[str, Any] = {
        "server": None,
        "settings": None,
        "pool": "",
        "labels": None,
        "params": None,
        "ttl": None,
        "wait": None,
        "expected": None,
        "priority": 0,
        "work": "",
        "master_host": "localhost",
        "master_port": None,
        "python": "python3",
        "basedir": "buildbot-worker",
        "identity": None,
    }
    return {name: kwargs.pop(name, default) for name, default in defaults.items()}


def _port(master: Any) -> int:
    """The port of the master for workers, if it is a number."""
    port = str(master.config.protocols.get("pb", {}).get("port", ""))
    digits = port.removeprefix("tcp:").split(":")[0]
    if not digits.isdigit():
        raise LatentWorkerCannotSubstantiate(f"wharfinger: set master_port: the master's own, {port!r}, is no number")
    return int(digits)


def _outcome(builds: Sequence[Any]) -> tuple[types_pb2.Outcome, str]:
    """The outcome of a lease by the results of its builds."""
    results = [build.results for build in builds]
    note = ", ".join(f"build {build.buildid} of {build.builder.name}" for build in builds)
    if any(result == FAILURE for result in results):
        return types_pb2.OUTCOME_FAILED, f"{note}: failed"
    if results and all(result in (SUCCESS, WARNINGS) for result in results):
        return types_pb2.OUTCOME_OK, note
    return types_pb2.OUTCOME_ABANDONED, f"{note}: cut short"
