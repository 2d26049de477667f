"""The client without asyncio, and processes beside it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import pytest
import wharfinger
import wharfinger.sync
from farm import PATIENCE, Broker


def test_a_whole_life(broker: Broker) -> None:
    with wharfinger.sync.Client(broker.address) as client:
        with client.lease("here", work="unit@1") as lease:
            done = lease.run("sh", "-c", "echo $WHARFINGER_LEASE", capture=True)
            assert done.stdout.decode().strip() == lease.id
            assert client.get(lease.id).work == "unit@1" and not lease.broken.is_set()
            lease.check()
        assert lease.aio.released is not None and lease.aio.released.outcome == wharfinger.OUTCOME_OK
        with pytest.raises(ValueError, match="mine"):
            with client.lease("here") as lease:
                raise ValueError("mine")
        assert lease.aio.released is not None and lease.aio.released.outcome == wharfinger.OUTCOME_FAILED
        with pytest.raises(KeyboardInterrupt):
            with client.lease("here") as lease:
                raise KeyboardInterrupt
        assert lease.aio.released is not None and lease.aio.released.outcome == wharfinger.OUTCOME_ABANDONED
        with pytest.raises(wharfinger.NotFound):
            with client.lease("nowhere"):
                pass


def test_a_break_ends_the_command_and_the_with(broker: Broker) -> None:
    with wharfinger.sync.Client(broker.address) as client:
        with pytest.raises(wharfinger.LeaseBroken) as lost:
            with client.lease("here") as lease:
                breaking = threading.Thread(target=broker.cli, args=("break", lease.id, "--reason", "x"))
                breaking.start()
                begun = time.monotonic()
                lease.run("sleep", "1000")
        breaking.join()
        assert lost.value.causes[0].reason == "OPERATOR" and time.monotonic() - begun < 30
        # A body that does not ask hears of it at the end.
        with pytest.raises(wharfinger.LeaseBroken):
            with client.lease("here") as lease:
                broker.cli("break", lease.id, "--reason", "x")
                assert lease.broken.wait(PATIENCE)
                with pytest.raises(wharfinger.LeaseBroken):
                    lease.check()


def test_work_is_tried_again_while_its_leases_break(broker: Broker) -> None:
    tried: list[str] = []
    with wharfinger.sync.Client(broker.address) as client:
        for attempt in client.attempts("here", retries=2):
            with attempt as lease:
                tried.append(lease.id)
                if len(tried) < 3:
                    broker.cli("break", lease.id, "--reason", "x")
                    lease.run("sleep", "1000")
        assert len(set(tried)) == 3
        with pytest.raises(wharfinger.LeaseBroken):
            for attempt in client.attempts("here", retries=1):
                with attempt as lease:
                    broker.cli("break", lease.id, "--reason", "x")
                    lease.run("sleep", "1000")


def test_commands_beside_a_lease_do_not_hang(broker: Broker) -> None:
    with wharfinger.sync.Client(broker.address) as client, client.lease("here") as lease:
        for _ in range(20):
            assert subprocess.run(["true"], timeout=PATIENCE).returncode == 0
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            assert pool.apply_async(_other_process, (broker.address, lease.id)).get(PATIENCE) == lease.id
        lease.check()


def _other_process(address: str, lease: str) -> str:
    with wharfinger.sync.Client(address) as client:
        return client.get(lease).id


def test_a_fork_with_a_connection_is_refused_and_does_not_hang(broker: Broker) -> None:
    with wharfinger.sync.Client(broker.address) as client, client.lease("here") as lease:

        def refused(call: Any) -> bool:
            try:
                call()
            except wharfinger.ForkError:
                return True
            return False

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            fine = refused(lambda: client.get(lease.id))
            fine = fine and refused(lambda: wharfinger.sync.Client(broker.address).get(lease.id))
            os._exit(0 if fine else 1)
        end = time.monotonic() + PATIENCE
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                os.kill(child, 9)
                os.waitpid(child, 0)
                pytest.fail("the child hangs")
            time.sleep(0.05)
        assert os.waitstatus_to_exitcode(status) == 0
        # The parent goes on.
        assert client.get(lease.id).id == lease.id


def test_a_fork_before_the_first_call_is_free(broker: Broker) -> None:
    script = (
        "import os, sys, wharfinger.sync\n"
        "client = wharfinger.sync.Client(sys.argv[1])\n"
        "child = os.fork()\n"
        "with client, client.lease('here') as lease:\n"
        "    lease.run('true')\n"
        "if child:\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, broker.address], timeout=PATIENCE)
    assert done.returncode == 0
