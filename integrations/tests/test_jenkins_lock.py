"""The step `lock` of Jenkins with `serverId`, by a double of the plugin, with the pages' own lines."""

from __future__ import annotations

import re
import threading

import pytest
from doubles.jenkins_lock import AbortError, Connection, Lock, RemoteApiError
from farm import Farm, until
from products.jenkins_lock import arguments, open_port
from snippets import snippet


@pytest.fixture
def jenkins(farm: Farm) -> Connection:
    """The farm's broker with the port of docs/adopt/jenkins.md, and a connection with the token of an agent."""
    return Connection(open_port(farm), "jenkins", (farm.folder / "token-ci").read_text().strip())


def step(farm: Farm, command: str) -> tuple[dict[str, object], str]:
    """What the step of the page asks for, and the script of its body with this command."""
    text = snippet("jenkins.md", "lock", {"make test": command})
    [script] = re.findall(r"sh '(.*)'", text)
    return arguments(text), script


def env(farm: Farm) -> dict[str, str]:
    """The environment of a step on an agent."""
    return farm.env(WHARFINGER_SERVER=farm.server)


def test_the_step_of_the_page_leases_works_and_releases(farm: Farm, jenkins: Connection) -> None:
    """The body runs on the leased host; the lease is released without a word on how the work went."""
    request, script = step(farm, f"sh -c \"echo $WHARFINGER_LEASE $HOST >{farm.folder}/ran; sleep 2\"")
    lock = Lock(jenkins, request)
    lock.enqueue()
    assert lock.acquire()
    assert lock.run(script, env(farm)) == 0, lock.log
    lease = farm.json("get", lock.lock)
    assert (lease["state"], lease["outcome"], lease["holder"]) == ("RELEASED", "ABANDONED", "https://ci.example.org/")
    assert (farm.folder / "ran").read_text().split() == [lock.lock, lock.variables["WHARFINGER_RESOURCE"]]
    assert lock.heartbeats >= 1, lock.log
    assert not farm.on_hosts()


def test_a_host_dies_under_the_body_and_the_step_fails_with_75(farm: Farm, jenkins: Connection) -> None:
    """The plugin does not hear of it, and `on` does. The next lock is on the other host."""
    request, script = step(farm, f"sh -c \"echo $WHARFINGER_ADDRESS >{farm.folder}/ran; sleep 1000\"")
    lock = Lock(jenkins, request)
    lock.enqueue()
    assert lock.acquire()
    victim = next(host for host in farm.hosts.values() if host.address == lock.variables["WHARFINGER_ADDRESS"])
    killer = threading.Thread(target=lambda: until("the body", lambda: (farm.folder / "ran").exists()) and victim.kill())
    killer.start()
    assert lock.run(script, env(farm)) == 75
    killer.join()
    with pytest.raises(RemoteApiError, match="HTTP 410"):
        jenkins.call("POST", f"/lease/{lock.lock}/heartbeat")
    again = Lock(jenkins, request)
    again.enqueue()
    assert again.acquire()
    assert again.variables["WHARFINGER_ADDRESS"] != lock.variables["WHARFINGER_ADDRESS"]
    again.release()


def test_a_lock_survives_a_restart_of_the_broker_and_waits_its_turn(farm: Farm, jenkins: Connection) -> None:
    """Two locks hold both hosts. A third one waits over a restart, and is held when one of them is released."""
    request, _ = step(farm, "true")
    locks = [Lock(jenkins, request | {"priority": n}) for n in range(3)]
    for lock in locks[:2]:
        lock.enqueue()
        assert lock.acquire()
    skipped = Lock(jenkins, request | {"skipIfLocked": True})
    skipped.enqueue()
    assert not skipped.acquire()
    locks[2].enqueue()
    farm.restart_broker()
    assert locks[2].state() == "QUEUED"
    locks[0].release()
    assert locks[2].acquire()
    assert locks[1].state() == "ACQUIRED"
    hurried = Lock(jenkins, request | {"timeoutForAllocateResource": 1, "timeoutUnit": "SECONDS"})
    hurried.enqueue()
    with pytest.raises(AbortError, match="LOCK_WAIT_TIMEOUT"):
        hurried.acquire()
    for lock in locks[1:]:
        lock.release()


def test_wrong_credentials_and_wrong_targets_are_refused(farm: Farm, jenkins: Connection) -> None:
    """With a status and a code that the plugin shows."""
    request, _ = step(farm, "true")
    stranger = Lock(Connection(jenkins.url, "jenkins", "wfk_ci_wrong_wrong"), request)
    with pytest.raises(RemoteApiError, match="HTTP 401"):
        stranger.enqueue()
    with pytest.raises(RemoteApiError, match="HTTP 404, errorCode=UNKNOWN_LABEL"):
        Lock(jenkins, request | {"label": "nowhere"}).enqueue()
    with pytest.raises(RemoteApiError, match="HTTP 400, errorCode=MISSING_QUANTITY"):
        Lock(jenkins, {"label": "hosts"}).enqueue()
