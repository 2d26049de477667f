"""The pytest plugin: a lease for a test, and another run for a test whose lease broke.

    @pytest.mark.wharfinger("hosts", labels={"os": "linux"})
    def test_installs(leased):
        leased.run("make", "install")

A test whose lease broke, or whose host a check found unfit, is run again on another resource, at most ``retries`` times. Its report
is ``rerun``, and none of ``failed``. If the last run loses its lease too, the report is an error that says whose fault it is. With
xdist each worker leases for itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Generator, Iterator, Optional

import pytest
from _pytest.runner import runtestprotocol

from . import sync
from .errors import LeaseBroken, WharfingerError
from .v1 import types_pb2

_FAULT = types_pb2.Finding.Fault


@dataclass
class _Use:
    """The use of a lease by one run of a test."""

    lease: "Optional[sync.Lease]" = None
    lost: Optional[LeaseBroken] = None
    fault: str = ""
    detail: str = ""
    error: Optional[BaseException] = None
    """What the test raised."""
    over: bool = False
    """Whether the test came to an end of its own: an interrupt has no report."""
    avoid: "list[str]" = field(default_factory=list)
    about: str = ""

    @property
    def again(self) -> bool:
        """Whether another run is worth it."""
        if self.lost is not None:
            return self.lost.retry
        return self.fault == "RESOURCE"


_use = pytest.StashKey[_Use]()
_plugin = pytest.StashKey["Plugin"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("wharfinger", "leases of build infrastructure")
    group.addoption("--wharfinger-server", metavar="ADDRESS", help="address of the broker; WHARFINGER_SERVER if absent")
    group.addoption(
        "--wharfinger-retries", metavar="N", type=int, help="maximum number of further runs of a test whose lease breaks (2)"
    )
    group.addoption(
        "--wharfinger-work",
        metavar="NAME",
        help="name of this work and its commit, as in unit@1234: failures of the same test of the same work are compared",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark."""
    config.addinivalue_line(
        "markers",
        "wharfinger(pool, *, labels, branch, params, ttl, wait, expected, share=False, retries=2, ...): run the test with a lease, in "
        "fixture `leased`, and run it again if the lease breaks. share: keep the lease for the next test that wants the same.",
    )
    config.stash[_plugin] = Plugin(config)
    config.pluginmanager.register(config.stash[_plugin], "wharfinger-leases")


class Plugin:
    """The leases of one process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._client: Optional[sync.Client] = None
        self._shared: dict[str, sync.Lease] = {}
        self.again: list[str] = []

    @property
    def client(self) -> sync.Client:
        """The client, which connects at its first use: never before xdist has started its workers."""
        if self._client is None:
            self._client = sync.Client(self._config.getoption("--wharfinger-server"))
        return self._client

    def wanted(self, item: pytest.Item) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the lease of a test."""
        mark = item.get_closest_marker("wharfinger")
        if mark is None:
            raise pytest.UsageError("fixture `leased` needs the mark: @pytest.mark.wharfinger(POOL)")
        wanted = {name: value for name, value in mark.kwargs.items() if name not in ("share", "retries")}
        name = self._config.getoption("--wharfinger-work") or os.environ.get("WHARFINGER_WORK")
        if name:
            wanted.setdefault("work", f"{name}:{item.nodeid}"[:256])
        wanted.setdefault("holder", self.client.settings.holder or f"pytest {item.nodeid}"[:1000])
        return mark.args, wanted

    def share(self, item: pytest.Item) -> bool:
        """Whether the lease outlasts the test."""
        mark = item.get_closest_marker("wharfinger")
        return mark is not None and bool(mark.kwargs.get("share", False))

    def retries(self, item: pytest.Item) -> int:
        """Maximum number of further runs."""
        mark = item.get_closest_marker("wharfinger")
        given = self._config.getoption("--wharfinger-retries")
        return int(given if given is not None else mark.kwargs.get("retries", 2) if mark is not None else 0)

    def take(self, item: pytest.Item, use: _Use) -> sync.Lease:
        """Leases for a test."""
        args, wanted = self.wanted(item)
        key = repr((args, sorted((name, str(value)) for name, value in wanted.items() if name not in ("work", "holder"))))
        shared = self._shared.pop(key, None) if self.share(item) else None
        if shared is not None:
            if shared.aio.is_lost:
                self._end(shared, None)
            else:
                use.about = key
                return shared
        lease = self.client.lease(*args, **{**wanted, "avoid": [*wanted.get("avoid", ()), *use.avoid]})
        lease.__enter__()
        use.about = key
        return lease

    def give(self, item: pytest.Item, use: _Use) -> None:
        """The test has ended: releases its lease, and finds out whose fault a failure was."""
        lease = use.lease
        assert lease is not None
        if self.share(item) and use.over and use.error is None and not lease.aio.is_lost:
            self._shared[use.about] = lease
            return
        use.lost = self._end(lease, use.error if use.over else KeyboardInterrupt("the test is cut short"))
        if use.lost is None and use.error is not None and not isinstance(use.error, WharfingerError):
            finding = self.client.wait(lease.aio.verdict())
            use.fault, use.detail = _FAULT.Name(finding.fault).removeprefix("FAULT_"), finding.detail

    def _end(self, lease: sync.Lease, error: Optional[BaseException]) -> Optional[LeaseBroken]:
        try:
            lease.__exit__(None if error is None else type(error), error, None)
        except LeaseBroken as lost:
            return lost
        except BaseException as raised:
            if raised is not error:
                raise
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Releases what is shared."""
        for lease in self._shared.values():
            self._end(lease, None)
        self._shared.clear()
        if self._client is not None:
            self._client.close()
            self._client = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: Optional[pytest.Item]) -> Optional[bool]:
        """Runs a test with a lease, again and again while its lease breaks."""
        if item.get_closest_marker("wharfinger") is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        avoid: list[str] = []
        retries = self.retries(item)
        for run in range(retries + 1):
            use = item.stash[_use] = _Use(avoid=avoid)
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            why = _why(use)
            again = use.again and run < retries
            for report in reports:
                if again:
                    # One report of the run stands for it. Its other phases say nothing.
                    if report.when != "call":
                        continue
                    report.outcome = "rerun"  # type: ignore[assignment]
                    setattr(report, "wharfinger", why)
                elif use.lost is not None and use.lost.retry and report.when == "call":
                    # An error of what the test needs, and no failure of the test.
                    report.when, report.outcome = "setup", "failed"
                    report.longrepr = f"{why}\nThe test did not run to its end on a lease that held, after {run + 1} runs."
                elif report.failed and why:
                    report.sections.append(("wharfinger", why))
                item.ihook.pytest_runtest_logreport(report=report)
            if not again:
                break
            avoid = [*avoid, use.lease.resource_id] if use.lease is not None and use.lease.resource_id else avoid
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


def _why(use: _Use) -> str:
    """What is known of the end of the lease, in a line."""
    if use.lost is not None:
        return f"{use.lost}; whose fault: {use.lost.fault}"
    if use.lease is None or not use.fault:
        return ""
    message = use.lease.message
    on = f"lease {message.id} on {use.lease.resource_id}"
    return f"{on}; whose fault: {use.fault}{f' ({use.detail})' if use.detail else ''}"


@pytest.fixture
def leased(request: pytest.FixtureRequest) -> Iterator[sync.Lease]:
    """The lease of a test with the mark ``wharfinger``: a ``wharfinger.sync.Lease``."""
    item = request.node
    plugin, use = request.config.stash[_plugin], item.stash.setdefault(_use, _Use())
    try:
        use.lease = plugin.take(item, use)
    except WharfingerError as error:
        pytest.fail(f"no lease: {error}", pytrace=False)
    try:
        yield use.lease
    finally:
        plugin.give(item, use)


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test with the mark has the lease also if it does not name the fixture."""
    names = getattr(item, "fixturenames", None)
    if names is not None and item.get_closest_marker("wharfinger") is not None and "leased" not in names:
        names.insert(0, "leased")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Generator[None, Any, None]:
    """Notes what the test raised."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    use = item.stash.get(_use, None)
    if use is None or call.when == "teardown":
        return
    use.over = use.over or call.when == "call" or not report.passed
    if call.excinfo is not None and report.failed:
        use.error = call.excinfo.value


def pytest_report_teststatus(report: "pytest.TestReport | pytest.CollectReport") -> Any:
    """A run whose lease broke is no failure of the test."""
    if report.outcome == "rerun":  # type: ignore[comparison-overlap]
        return "rerun", "R", ("RERUN", {"yellow": True})
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says which tests were run again, and whose fault it was."""
    again = terminalreporter.stats.get("rerun", [])
    reports = [report for report in again if getattr(report, "wharfinger", "")]
    if reports:
        terminalreporter.section("tests that were run again, since their leases broke")
        for report in reports:
            terminalreporter.line(f"{report.nodeid}: {report.wharfinger}")
