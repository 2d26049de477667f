"""The action beyond the seven cases."""

from __future__ import annotations

import re

from cases import ENDED
from products.github import run_workflow, workflow
from farm import Farm, children, is_alive, until


def test_a_step_whose_runner_was_killed_ends_itself(farm: Farm) -> None:
    """The runner alone is killed: the step hears of it from no one, and ends as if cancelled, long before its TTL."""
    farm.plan("wait")
    job = run_workflow(farm, workflow(farm, "workflow"))
    farm.first_attempt()
    below = list(children(job.process.pid))[1:]
    job.process.kill()
    job.process.wait()
    lease = until("the end of the lease", lambda: next((one for one in farm.leases() if one["state"] in ENDED), None))
    assert (lease["state"], lease["outcome"]) == ("RELEASED", "ABANDONED"), job.log()
    until("the end of the step", lambda: not farm.on_hosts() and not any(is_alive(pid) for pid in below))


def test_a_mistake_in_the_workflow_is_said_and_nothing_is_leased(farm: Farm) -> None:
    """Neither pool nor labels: the annotation names the input."""
    text = re.sub(r"\n *pool: copies", "", workflow(farm, "workflow"))
    job = run_workflow(farm, text)
    assert job.wait() == "failure"
    assert any("input pool" in text for text in job.annotations()), job.log()
    assert farm.leases() == []


def test_a_branch_that_is_not_there_is_the_requests_fault(farm: Farm) -> None:
    """The message of the broker is in the log, and nothing is tried again."""
    text = workflow(farm, "workflow", **{"pool: copies": "pool: copies\n          branch: nowhere"})
    job = run_workflow(farm, text)
    assert job.wait() == "failure"
    assert "REF_NOT_FOUND" in job.log()
    assert farm.attempts() == []


def test_a_failure_says_whose_fault_it_was_and_other_steps_know_it(farm: Farm) -> None:
    """The annotation, the summary and the outputs come from the result file."""
    farm.plan("fail")
    job = run_workflow(farm, workflow(farm, "outputs"))
    assert job.wait() == "success", job.log()
    assert "fault UNDECIDED, exit code 3" in job.log()
    [annotation] = [text for text in job.annotations() if "whose fault" in text]
    assert "UNDECIDED" in annotation
    assert "| 1 |" in job.summary()


def test_a_retried_step_shows_both_attempts_in_its_summary(farm: Farm) -> None:
    """The job is green, and the summary says that its machine was lost."""
    farm.plan("wait")
    job = run_workflow(farm, workflow(farm, "workflow"))
    farm.host_of(farm.first_attempt()).kill()
    assert job.wait() == "success", job.log()
    rows = [line for line in job.summary().splitlines() if line.startswith("| ") and "lse" in line]
    assert len(rows) == 2, job.summary()
    assert "BROKEN" in rows[0], rows


def test_files_of_the_work_are_there_for_the_next_step(farm: Farm) -> None:
    """`fetch` brings them into the workspace."""
    farm.plan("succeed")
    job = run_workflow(farm, workflow(farm, "files"))
    assert job.wait() == "success", job.log()
    assert "made on lse_" in job.log()


def test_no_capacity_is_nobodys_fault_and_may_be_tried_again(farm: Farm) -> None:
    """No host lives: the step gives up after `queue-for`, and says so in its outputs."""
    for host in farm.hosts.values():
        host.kill()
    farm.plan("succeed")
    job = run_workflow(farm, workflow(farm, "outputs", **{"pool: copies": "pool: copies\n          queue-for: 2s"}))
    assert job.wait() == "success", job.log()
    assert "fault SERVICE, exit code " in job.log()
    assert farm.attempts() == []
