"""The seven cases of docs/ci-cases.md: what happens to the work, and what was seen of it afterwards."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from farm import PATIENCE, TTL, Farm, until

ENDED = ("RELEASED", "BROKEN", "EXPIRED", "CANCELLED", "FAILED")


class Job(Protocol):
    """A job of a CI product that runs the work of a farm."""

    def cancel(self) -> None:
        """Cancels it by the product's own means."""

    def kill(self) -> None:
        """Ends the product's agent and all below it with SIGKILL."""

    def wait(self) -> str:
        """Waits until the product calls it finished, and returns the status that the product shows."""

    def log(self) -> str:
        """All that it has printed."""


@runtime_checkable
class HasResult(Protocol):
    """A job whose result file can be read after its end."""

    def result(self) -> dict[str, Any] | None:
        """The document; None if the program was killed."""


@runtime_checkable
class HasTtl(Protocol):
    """A product whose leases have a TTL of their own."""

    ttl: int
    """In seconds."""


@runtime_checkable
class IsSlow(Protocol):
    """A product that takes its time to begin a job."""

    slowest: float
    """Longest time in seconds from the damage to the second attempt, on a busy machine."""


class Product(Protocol):
    """A CI product."""

    name: str
    """Its name in the table."""

    def start(self, farm: Farm) -> Job:
        """Starts a job that runs the work, with two retries by Wharfinger."""


@dataclass(frozen=True)
class Seen:
    """What a case has shown. All but `restart` is the same in each run."""

    status: str
    """Final status, in the words of the CI product."""
    attempts: int
    """How often the work began."""
    leases: str
    """How each lease ended, in their order: its state, and its outcome or its causes, the nearest first."""
    finding: str
    """Whose fault it was, by the finding of the last lease; `-` if there is none."""
    left: int
    """Processes on the hosts afterwards."""
    restart: float | None
    """Seconds from the damage to the work of the second attempt."""

    def row(self) -> tuple[str, ...]:
        """The cells that are the same in each run."""
        return (self.status, str(self.attempts), self.leases, self.finding, str(self.left))

    def document(self) -> dict[str, Any]:
        """For the file of a row."""
        return asdict(self)


def _nothing(_farm: Farm, _job: Job) -> float | None:
    return None


def _host(farm: Farm, _job: Job) -> float | None:
    farm.host_of(farm.first_attempt()).kill()
    return time.time()


def _copy(farm: Farm, _job: Job) -> float | None:
    path = Path(farm.first_attempt()["path"])
    # A lease of a host has a directory, and no repository of its own.
    shutil.rmtree(path / ".git" if (path / ".git").exists() else path)
    return time.time()


def _cancel(farm: Farm, job: Job) -> float | None:
    farm.first_attempt()
    job.cancel()
    return None


def _kill(farm: Farm, job: Job) -> float | None:
    farm.first_attempt()
    job.kill()
    return None


def _broker(farm: Farm, _job: Job) -> float | None:
    farm.first_attempt()
    farm.restart_broker()
    farm.let_go()
    return None


@dataclass(frozen=True)
class Case:
    """One of the seven."""

    title: str
    mode: str
    happens: Callable[[Farm, Job], float | None]
    """Does the damage to the running work; returns its time if the work shall begin again."""


CASES = {
    "success": Case("success", "succeed", _nothing),
    "command-fails": Case("command fails", "fail", _nothing),
    "host-killed": Case("host killed midway", "wait", _host),
    "copy-mangled": Case("copy mangled midway", "wait", _copy),
    "cancelled": Case("cancelled in the CI product", "wait", _cancel),
    "agent-killed": Case("agent killed (SIGKILL)", "wait", _kill),
    "broker-restarted": Case("broker killed and started again", "wait", _broker),
}


def _ended(farm: Farm) -> list[dict[str, Any]] | None:
    leases = farm.leases()
    settled = all(
        lease["state"] in ENDED and not lease["cleaning"] and (lease["finding"] or {}).get("fault") != "OPEN" for lease in leases
    )
    return leases if leases and settled else None


def _end(lease: dict[str, Any]) -> str:
    if lease["causes"]:
        return f"{lease['state']} ({' < '.join(cause['reason'] for cause in lease['causes'])})"
    return f"{lease['state']} {lease['outcome']}" if lease["outcome"] else lease["state"]


def compare(result: dict[str, Any], leases: list[dict[str, Any]], attempts: int) -> None:
    """The result file says of the leases what the broker says of them."""
    told = [(one["lease"], one["state"], one["outcome"]) for one in result["attempts"]]
    assert told == [(lease["id"], lease["state"], lease["outcome"]) for lease in leases], result
    assert len(told) == attempts, result
    finding = leases[-1]["finding"]
    if finding is not None:
        assert result["fault"] == finding["fault"], result


def play(product: Product, case: Case, farm: Farm) -> tuple[Seen, str]:
    """Plays a case. Returns what was seen, and the log of the job."""
    farm.plan(case.mode)
    job = product.start(farm)
    patience = PATIENCE + (product.ttl if isinstance(product, HasTtl) else TTL)
    try:
        damage = case.happens(farm, job)
        status = job.wait()
        leases = until("the end of all leases", lambda: _ended(farm), patience, pause=0.4)
        until("the end of all processes on the hosts", lambda: not farm.on_hosts(), 20)
    except BaseException as problem:
        problem.add_note(f"log of the job:\n{job.log()}\nlog of the broker:\n{(farm.folder / 'broker.log').read_text()}")
        job.kill()
        raise
    attempts = farm.attempts()
    result = job.result() if isinstance(job, HasResult) else None
    if result is not None:
        compare(result, leases, len(attempts))
    restart = attempts[1]["at"] - damage if damage is not None and len(attempts) > 1 else None
    finding = (leases[-1]["finding"] or {}).get("fault") or "-"
    ends = ", ".join(_end(lease) for lease in leases)
    return Seen(status, len(attempts), ends, finding, len(farm.on_hosts()), restart), job.log()
