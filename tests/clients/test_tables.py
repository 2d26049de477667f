"""The tables of behaviours that all clients pass, and what a scripted server shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import grpc
import pytest
import wharfinger
from wharfinger.address import parse_addresses
from wharfinger.errors import error_of
from wharfinger.keeper import status_of
from wharfinger.v1 import types_pb2

HERE = Path(__file__).parent


def cases(table: str) -> list[Any]:
    """The cases of a table."""
    return [pytest.param(case, id=str(case.get("name") or case.get("text") or case.get("code") or n)) for n, case in enumerate(
        json.loads((HERE / f"{table}.json").read_text())["cases"]
    )]


@contextlib.contextmanager
def scripted(servers: list[dict[str, Any]]) -> Iterator[list[int]]:
    """Servers that answer as they are told: their ports."""
    process = subprocess.Popen(
        [sys.executable, HERE / "scripted.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        print(json.dumps(servers), file=process.stdin, flush=True)
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


@pytest.mark.parametrize("case", cases("addresses"))
def test_addresses(case: dict[str, Any]) -> None:
    if case["servers"] is None:
        with pytest.raises(wharfinger.AddressError, match="several with commas between"):
            parse_addresses(case["text"])
    else:
        found = [{"authority": a.authority, "private": a.is_private, "here": a.is_here} for a in parse_addresses(case["text"])]
        assert found == case["servers"]


@pytest.mark.parametrize("case", cases("errors"))
def test_errors(case: dict[str, Any]) -> None:
    code = grpc.StatusCode[case["code"]]
    assert code.value[0] == case["number"]
    kinds = {
        "request": wharfinger.RequestError,
        "not_found": wharfinger.NotFound,
        "state": wharfinger.StateError,
        "capacity": wharfinger.CapacityError,
        "resync": wharfinger.Resync,
        "unavailable": wharfinger.Unavailable,
        "bug": wharfinger.Bug,
    }
    assert type(error_of(code, "x")) is kinds[case["acts"]]


@pytest.mark.parametrize("case", cases("lease"))
def test_leases(case: dict[str, Any]) -> None:
    lease = types_pb2.Lease(state=case["state"])
    for field in case["has"]:
        getattr(lease, field).SetInParent()
    assert status_of(lease).value == case["status"]


@pytest.mark.parametrize("case", cases("way"))
def test_ways(case: dict[str, Any]) -> None:
    async def work(ports: list[int]) -> list[Any]:
        settings = wharfinger.Settings(
            server=",".join(f"127.0.0.1:{ports[index]}" for index in case["listed"]),
            follow=wharfinger.Follow(case["follow"]),
            retry_for=0.0,
        )
        found: list[Any] = []
        async with wharfinger.Client(settings=settings) as client:
            for _ in case["calls"]:
                try:
                    found.append((await client.get("l")).slot)
                except wharfinger.Unavailable as error:
                    found.append(error.reason or "UNREACHED")
        return found

    with scripted(case["servers"]) as ports:
        assert asyncio.run(work(ports)) == case["calls"]


def test_a_thousand_leases_in_one_loop_are_renewed_and_all_hear_of_their_breaks() -> None:
    count, ttl, after = 1000, 12, 9.0

    async def work(ports: list[int]) -> None:
        delays: list[float] = []
        async with wharfinger.Client(f"127.0.0.1:{ports[0]}") as client:

            async def hold() -> None:
                try:
                    async with client.lease("here", ttl=ttl, tags={"after": str(after)}) as lease:
                        await asyncio.sleep(60)
                except wharfinger.LeaseBroken as broken:
                    delays.append(time.time() - float(broken.causes[0].detail.removeprefix("at ")))
                    assert int(lease.message.tags["renewals"]) >= 1

            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(hold())
        assert len(delays) == count
        # On an idle machine some 50 ms.
        assert sorted(delays)[count // 2] < 1.0, sorted(delays)[-10:]

    with scripted([{"does": "leads"}]) as ports:
        asyncio.run(work(ports))


def test_a_token_goes_to_this_machine_alone_without_tls() -> None:
    async def work() -> None:
        settings = wharfinger.Settings(
            server="192.0.2.1:1", credentials=wharfinger.TokenText("wfk_a_b_c"), retry_for=0.0
        )
        assert "wfk_a_b_c" not in repr(settings) and "wfk" not in repr(settings.credentials)
        async with wharfinger.Client(settings=settings) as client:
            with pytest.raises(wharfinger.CredentialsError, match="is not sent to 192.0.2.1:1"):
                await client.get("l")

    asyncio.run(work())


def test_settings_come_from_the_environment_of_the_command_line(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    env = {
        "WHARFINGER_SERVER": "https://b:1",
        "WHARFINGER_HOLDER": "me",
        "WHARFINGER_CA_FILE": "/ca.pem",
        "WHARFINGER_FOLLOW_LEADER": "same-hosts",
        "WHARFINGER_AUTH_TOKEN_FILE": str(token),
        "WHARFINGER_AUTH_TOKEN": "second",
    }
    found = wharfinger.Settings.from_environment(env)
    assert (found.server, found.holder, str(found.ca_file)) == ("https://b:1", "me", "/ca.pem")
    assert found.follow is wharfinger.Follow.SAME_HOSTS and found.credentials is not None
    assert asyncio.run(found.credentials.token()).header == "Bearer first"
    token.write_text("a changed one is read again")
    with pytest.raises(wharfinger.CredentialsError, match="holds no token"):
        asyncio.run(found.credentials.token())
    command = wharfinger.Settings.from_environment({"WHARFINGER_AUTH_TOKEN_COMMAND": '["printf", "%s", "a.b"]'})
    assert command.credentials is not None and asyncio.run(command.credentials.token()).header == "Bearer a.b"
    for wrong, error in (
        ({"WHARFINGER_SERVER_URI": "spiffe://a/b"}, wharfinger.TlsError),
        ({"WHARFINGER_CERTIFICATE": "/c.pem"}, wharfinger.TlsError),
        ({"WHARFINGER_FOLLOW_LEADER": "all"}, wharfinger.AddressError),
        ({"WHARFINGER_AUTH_TOKEN": "a b"}, wharfinger.CredentialsError),
        ({"WHARFINGER_OIDC": "jenkins"}, wharfinger.CredentialsError),
        ({"WHARFINGER_OIDC": "gitlab"}, wharfinger.CredentialsError),
    ):
        with pytest.raises(error):
            wharfinger.Settings.from_environment(wrong)
