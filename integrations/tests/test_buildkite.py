"""The plugin beyond the seven cases."""

from __future__ import annotations

from products.buildkite import Buildkite
from farm import Farm, until


def test_a_failure_is_annotated_with_whose_fault_it_was(farm: Farm) -> None:
    """By `buildkite-agent annotate`, from the result file."""
    notes = farm.folder / "annotation"
    agent = farm.folder / "bin/buildkite-agent"
    agent.write_text(f'#!/bin/sh\n{{ echo "$@"; cat; }} >"{notes}"\n')
    agent.chmod(0o755)
    farm.plan("fail")
    job = Buildkite().start(farm)
    assert job.wait() == "failed (exit 3)", job.log()
    first, *rest = notes.read_text().splitlines()
    assert first == "annotate --style error --context wharfinger-0193a1f2-0000-4000-8000-000000000001"
    assert "Whose fault: UNDECIDED" in "".join(rest)


def test_pre_exit_releases_what_a_killed_command_left(farm: Farm) -> None:
    """The program alone is killed: the hooks go on, and release its lease before its TTL."""
    farm.plan("wait")
    job = Buildkite().start(farm)
    farm.first_attempt()
    job.kill_program()
    assert job.wait() == "failed (exit 137)", job.log()
    assert [(lease["state"], lease["outcome"]) for lease in farm.leases()] == [("RELEASED", "ABANDONED")], job.log()
    until("the end of what ran on the host", lambda: not farm.on_hosts())
