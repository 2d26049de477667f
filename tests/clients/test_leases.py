"""A lease in its ``async with``, against a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Coroutine

import pytest
import wharfinger
from farm import PATIENCE, Broker, Host, farm, members, until
from wharfinger.v1 import lease_pb2, types_pb2


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs it to its end, within the patience of a test."""

    async def limited() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


async def breaks(broker: Broker, lease: wharfinger.Lease) -> float:
    """An operator breaks the lease. Returns the time at which the broker had done so."""
    await asyncio.to_thread(broker.cli, "break", lease.id, "--reason", "a test")
    return time.monotonic()


def test_a_whole_life(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            async with client.lease("here", work="unit@1", holder="me", ttl=60, tags={"a": "b"}) as lease:
                assert lease.status is wharfinger.Status.ACTIVE and lease.token > 0
                done = await lease.run("sh", "-c", 'echo "$WHARFINGER_LEASE $PWD"; echo x >made; cat', capture=True, input=b"fed")
                assert done.stdout.decode() == f"{lease.id} {lease.path}\nfed"
                assert (Path(lease.path) / "made").exists()
                assert lease.env()["WHARFINGER_TOKEN"] == str(lease.token)
                found = await client.get(lease.id)
                assert (found.holder, found.work, found.tags["a"]) == ("me", "unit@1", "b")
                assert lease.id in [each.id async for each in client.list()]
                assert (await client.explain(lease.id)).summary
                before = found.expires_at.seconds
                assert (await client.renew(lease.id, 120)).expires_at.seconds > before
            assert lease.released is not None and lease.released.outcome == wharfinger.OUTCOME_OK
            assert (await client.server()).version
            assert [pool.name for pool in await client.pools()] == ["here"]

    run(work())


def test_work_that_fails_is_reported_and_released_as_failed(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            with pytest.raises(subprocess.CalledProcessError) as failed:
                async with client.lease("here", work="unit@1") as lease:
                    await lease.run("sh", "-c", "exit 3")
            assert failed.value.returncode == 3
            assert lease.lost is None and lease.released is not None
            assert lease.released.outcome == wharfinger.OUTCOME_FAILED
            assert "exit status 3" in lease.released.note
            assert (await lease.verdict()).fault == types_pb2.Finding.FAULT_UNDECIDED

    run(work())
    reasons = broker.cli("events")
    assert "HOLDER_REPORTED" in reasons or "reported" in reasons, reasons


def test_a_break_reaches_the_body_within_a_second_and_ends_its_command(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            broken, told = 0.0, 0.0

            async def operator(lease: wharfinger.Lease) -> None:
                nonlocal broken
                broken = await breaks(broker, lease)

            with pytest.raises(wharfinger.LeaseBroken) as lost:
                async with client.lease("here") as lease:
                    mark = Path(lease.path) / "runs"
                    async with await lease.start("sh", "-c", ": >runs; sleep 1000 & wait") as running:
                        pid = running.process.pid
                        while not mark.exists():
                            await asyncio.sleep(0.01)
                        breaking = asyncio.create_task(operator(lease))
                        try:
                            await running.complete()
                        finally:
                            told = time.monotonic()
            await breaking
            # The verb of the operator ends after the news.
            assert told - broken < 1.0
            assert lost.value.causes[0].reason == "OPERATOR" and lost.value.retry and lost.value.fault == "RESOURCE"
            assert isinstance(lost.value.__cause__, asyncio.CancelledError)
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0
            until(lambda: not members(pid), "the end of what the command started", 10)

    run(work())


def test_a_break_that_the_body_finds_out_itself_is_one_and_leaves_no_cancel_behind(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            with pytest.raises(wharfinger.LeaseBroken) as lost:
                async with client.lease("here") as lease:
                    # Not heard of, since nothing is awaited.
                    broker.cli("break", lease.id, "--reason", "a test")
                    lease.take(lease_of(lease))
                    lease.check()
            assert lost.value.__cause__ is not lost.value
            for _ in range(3):
                await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0

    run(work())


def lease_of(lease: wharfinger.Lease) -> types_pb2.Lease:
    """The lease after its break."""
    found = types_pb2.Lease()
    found.CopyFrom(lease.message)
    found.revision += 1000
    found.ended_at.GetCurrentTime()
    found.state = types_pb2.LEASE_STATE_BROKEN
    return found


def test_a_break_ends_a_group_of_tasks_too(broker: Broker) -> None:
    ended: list[str] = []

    async def part(name: str) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(name)

    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            with pytest.raises(wharfinger.LeaseBroken):
                async with client.lease("here") as lease, asyncio.TaskGroup() as group:
                    group.create_task(part("a"))
                    group.create_task(part("b"))
                    await breaks(broker, lease)

    run(work())
    assert sorted(ended) == ["a", "b"]


def test_a_body_that_swallows_the_cancellation_has_no_lease_all_the_same(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            with pytest.raises(wharfinger.LeaseBroken):
                async with client.lease("here") as lease:
                    breaking = asyncio.create_task(breaks(broker, lease))
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(1000)
            await breaking

    run(work())


def test_a_cancel_from_outside_is_not_eaten_and_releases_as_abandoned(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            entered = asyncio.Event()
            lease = client.lease("here")

            async def body() -> None:
                async with lease:
                    entered.set()
                    await asyncio.sleep(1000)

            task = asyncio.create_task(body())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert lease.released is not None and lease.released.outcome == wharfinger.OUTCOME_ABANDONED
            # A time limit around the lease is one, too.
            limited = client.lease("here")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as limit, limited:
                    limit.reschedule(asyncio.get_running_loop().time() + 0.1)
                    await asyncio.sleep(1000)
            assert limited.released is not None and limited.released.outcome == wharfinger.OUTCOME_ABANDONED

    run(work())


def test_of_a_break_and_a_cancel_at_once_the_cancel_stays(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            entered = asyncio.Event()
            lease = client.lease("here")

            async def body() -> None:
                async with lease:
                    entered.set()
                    try:
                        await asyncio.sleep(1000)
                    finally:
                        # The break has come. Now comes the cancel from outside.
                        assert lease.is_lost
                        task.cancel()
                        await asyncio.sleep(1000)

            task = asyncio.create_task(body())
            await entered.wait()
            await breaks(broker, lease)
            with pytest.raises(asyncio.CancelledError):
                await task

    run(work())


def test_a_holder_that_gives_up_in_the_queue_leaves_it() -> None:
    async def work(broker: Broker) -> None:
        async with wharfinger.Client(broker.address) as client:
            async with client.lease("here"):
                waiting = client.lease("here")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5), waiting:
                        pytest.fail("there is one slot")
                assert waiting.status is wharfinger.Status.WAITING
                states = [(each.id, each.state) async for each in client.list()]
                assert len(states) == 1, states
                with pytest.raises(wharfinger.CapacityError) as full:
                    async with client.lease("here", wait=0.3):
                        pytest.fail("there is one slot")
                assert full.value.reason == "WAIT_DEADLINE"
                with pytest.raises(wharfinger.CapacityError) as none:
                    async with client.lease("here", no_queue=True):
                        pytest.fail("there is one slot")
                assert none.value.reason == "NO_CAPACITY"

    with farm(slots=1) as (broker, _):
        run(work(broker))


def test_errors_say_who_must_act(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            with pytest.raises(wharfinger.NotFound) as unknown:
                async with client.lease("nowhere"):
                    pass
            assert unknown.value.reason == "UNKNOWN_POOL"
            with pytest.raises(wharfinger.RequestError) as wrong:
                async with client.lease("here", ttl=-1):
                    pass
            assert wrong.value.violations or wrong.value.reason
            first = await client.request(
                lease_pb2.LeaseRequest(request_id="one", selector=types_pb2.Selector(pool="here"))
            )
            again = await client.request(
                lease_pb2.LeaseRequest(request_id="one", selector=types_pb2.Selector(pool="here"))
            )
            assert first.leases[0].id == again.leases[0].id
            with pytest.raises(wharfinger.StateError) as conflict:
                async with client.lease("here", request_id="one", holder="another"):
                    pass
            assert conflict.value.reason == "REQUEST_ID_CONFLICT"
        nothing = wharfinger.Settings(server="127.0.0.1:1", retry_for=0.0, connect_timeout=1.0)
        async with wharfinger.Client(settings=nothing) as client:
            with pytest.raises(wharfinger.Unavailable, match="refused"):
                await client.server()

    run(work())


def test_a_restart_of_the_broker_is_not_seen(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            async with client.lease("here", ttl=20) as lease:
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.up)
                await client.renew(lease.id)
                assert lease.status is not wharfinger.Status.LOST
                # The watch has resumed: it tells what happens now.
                tasks.append(asyncio.create_task(breaks(broker, lease)))
                await asyncio.sleep(1000)

    tasks: list[asyncio.Task[float]] = []
    with pytest.raises(wharfinger.LeaseBroken, match="OPERATOR"):
        run(work())


def test_without_contact_for_a_whole_ttl_the_lease_is_lost(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            with pytest.raises(wharfinger.LeaseBroken) as lost:
                async with client.lease("here", ttl=2):
                    await asyncio.sleep(2.5)
                    begun = time.monotonic()
                    await asyncio.to_thread(broker.kill)
                    await asyncio.sleep(1000)
            assert lost.value.why == "no_contact"
            assert time.monotonic() - begun < 10

    run(work())


def test_a_lease_that_the_broker_does_not_know_any_more_is_lost(broker: Broker) -> None:
    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            with pytest.raises(wharfinger.LeaseBroken) as lost:
                async with client.lease("here", ttl=5):
                    await asyncio.to_thread(broker.kill)
                    for file in broker.folder.glob("w.db*"):
                        file.unlink()
                    await asyncio.to_thread(broker.up)
                    await asyncio.sleep(1000)
            assert lost.value.why == "forgotten"

    run(work())


def test_the_work_is_restarted_on_the_other_host_when_its_host_dies(two_hosts: tuple[Broker, list[Host]]) -> None:
    broker, hosts = two_hosts
    tried: list[str] = []

    async def work() -> float:
        killed = 0.0
        async with wharfinger.Client(broker.address) as client:
            async for attempt in client.attempts("hosts", work="unit@1"):
                async with attempt as lease:
                    tried.append(lease.resource_id)
                    if len(tried) == 1:
                        victim = next(host for host in hosts if host.port == lease.access.ssh.port)
                        async with await lease.start("sleep", "1000") as running:
                            await asyncio.to_thread(victim.kill)
                            killed = time.monotonic()
                            await running.complete()
                        pytest.fail("the host is dead")
                    done = await lease.run("sh", "-c", 'printf "%s" "$WHARFINGER_RESOURCE it\'s \\\\ $1"', "sh", "a b\n$c", capture=True)
                    assert done.stdout.decode() == f"{lease.resource_id} it's \\ a b\n$c"
                    with pytest.raises(subprocess.CalledProcessError) as failed:
                        await lease.run("sh", "-c", "exit 255")
                    assert failed.value.returncode == 255
        return time.monotonic() - killed

    seconds = run(work())
    assert len(set(tried)) == 2, tried
    assert seconds < 30
    ends = {each["state"] for each in broker.leases()}
    assert ends == {"BROKEN", "RELEASED"}, ends


def test_what_a_cancelled_command_started_on_a_host_has_ended(two_hosts: tuple[Broker, list[Host]]) -> None:
    broker, _ = two_hosts

    async def work() -> None:
        async with wharfinger.Client(broker.address) as client:
            async with client.lease("hosts") as lease:
                mark = Path(broker.folder) / "pid"
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2):
                        await lease.run("sh", "-c", f"sleep 1000 & echo $! >{mark}; wait")
                pid = int(mark.read_text())
                until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the process", 10)
                # The lease goes on.
                await lease.run("true")

    run(work())


def test_signals_and_interrupts_abandon(broker: Broker, tmp_path: Path) -> None:
    script = tmp_path / "holder.py"
    script.write_text(
        "import asyncio, sys, wharfinger\n"
        "async def main():\n"
        "    async with wharfinger.Client(sys.argv[1]) as client, client.lease('here') as lease:\n"
        "        print(lease.id, flush=True)\n"
        "        await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    holder = subprocess.Popen(
        [sys.executable, str(script), broker.address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert holder.stdout is not None
    with holder.stdout:
        lease = holder.stdout.readline().strip()
    holder.send_signal(signal.SIGINT)
    assert holder.wait(PATIENCE) != 0
    found = broker.get(lease)
    assert (found["state"], found["outcome"]) == ("RELEASED", "ABANDONED"), found


def test_a_holder_that_is_killed_ends_with_the_ttl(broker: Broker) -> None:
    script = (
        "import sys, time, wharfinger.sync\n"
        "with wharfinger.sync.Client(sys.argv[1]) as client, client.lease('here', ttl=3) as lease:\n"
        "    print(lease.id, flush=True)\n"
        "    lease.run('sleep', '1000')\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, broker.address], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        lease = holder.stdout.readline().strip()
    first = broker.get(lease)["expires_at"]
    until(lambda: broker.get(lease)["expires_at"] != first, "a renewal")
    holder.kill()
    holder.wait(PATIENCE)
    until(lambda: broker.get(lease)["state"] == "EXPIRED", "the end of the TTL")


def test_a_copy_that_is_mangled_midway_is_not_the_works_fault(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    origin.mkdir()
    for argv in (["init", "-q", "-b", "main"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *argv], check=True)
    pools = f'[[pool]]\nname = "copies"\nadapter = "copies"\non = "here"\n[pool.copies]\nrepository = "{origin}"\n'
    tried: list[str] = []

    async def work(broker: Broker) -> None:
        async with wharfinger.Client(broker.address) as client:
            async for attempt in client.attempts("copies", branch="main", work="unit@1"):
                async with attempt as lease:
                    tried.append(lease.id)
                    assert lease.access.commit
                    await lease.run("git", "status", "--short")
                    if len(tried) == 1:
                        await lease.run("sh", "-c", "rm -rf .git; exit 1")

    with farm(pools=pools) as (broker, _):
        run(work(broker))
        first, second = (broker.get(lease) for lease in tried)
    assert first["state"] == "BROKEN" and second["outcome"] == "OK", (first, second)
    assert first["causes"][0]["reason"] == "RESOURCE_MANGLED", first["causes"]
