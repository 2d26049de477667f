"""Certificates and tokens, against a real broker with TLS."""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
from pathlib import Path

import pytest
import wharfinger
from farm import PATIENCE, farm, program

GRANTS = """
[server.tls]
certificate = "{pki}/127.0.0.1.pem"
key = "{pki}/127.0.0.1.key"
client_ca = "{pki}/ca/ca.pem"
client_auth = "optional"
[[auth.certificate]]
uri = "spiffe://farm.example.org/agents/"
tenant = "default"
roles = ["agent"]
[[auth.token]]
id = "t1"
sha256 = [{hashes}]
tenant = "default"
roles = ["agent"]
expires = "never"
"""


def pki(folder: Path) -> None:
    """An authority, the certificate of the server, and one of a caller."""
    for argv in (
        ["init", "--domain", "farm.example.org", folder / "ca"],
        ["server", "--name", "127.0.0.1", "--out", folder, folder / "ca"],
        ["client", "--uri", "spiffe://farm.example.org/agents/a", "--out", folder / "mine", folder / "ca"],
    ):
        (folder / "mine").mkdir(exist_ok=True)
        subprocess.run([program(), "pki", *argv], check=True, capture_output=True, timeout=PATIENCE)


def tokens() -> list[tuple[str, str]]:
    """Two tokens of one id, with their hashes."""
    found = []
    for _ in range(2):
        done = subprocess.run(
            [program(), "token", "new", "--expires", "never", "t1"], check=True, capture_output=True, text=True, timeout=PATIENCE
        )
        token = re.search(r"wfk_t1_\w+", done.stdout)
        sha256 = re.search(r'sha256 = "(\w+)"', done.stdout + done.stderr)
        assert token and sha256, done
        found.append((token[0], sha256[1]))
        assert len(sha256[1]) == len(hashlib.sha256().hexdigest())
    return found


def test_agents_lease_by_a_certificate_or_a_token_file_and_strangers_do_not(tmp_path: Path) -> None:
    pki(tmp_path)
    (first, first_hash), (second, second_hash) = tokens()
    more = GRANTS.format(pki=tmp_path, hashes=f'"{first_hash}", "{second_hash}"')

    async def work(address: str) -> None:
        server = f"https://{address}"
        (certificate,) = (tmp_path / "mine").glob("*.pem")
        env = {"WHARFINGER_SERVER": server, "WHARFINGER_CA_FILE": str(tmp_path / "ca" / "ca.pem")}
        by_certificate = wharfinger.Settings.from_environment(
            {**env, "WHARFINGER_CERTIFICATE": str(certificate), "WHARFINGER_CERTIFICATE_KEY": str(certificate.with_suffix(".key"))}
        )
        async with wharfinger.Client(settings=by_certificate) as client:
            async with client.lease("here") as lease:
                await lease.run("true")
                assert "spiffe://farm.example.org/agents/a" in lease.message.principal
            assert lease.released is not None and lease.released.outcome == wharfinger.OUTCOME_OK
            # An agent needs no verb of an operator, and has none.
            with pytest.raises(subprocess.CalledProcessError):
                async with client.lease("here") as lease:
                    await lease.run("false")
        file = tmp_path / "token"
        file.write_text(first)
        by_token = wharfinger.Settings.from_environment({**env, "WHARFINGER_AUTH_TOKEN_FILE": str(file)})
        async with wharfinger.Client(settings=by_token) as client:
            async with client.lease("here") as lease:
                assert lease.message.principal == "token:t1"
                # It is replaced while the lease lives.
                file.write_text(second)
                assert (await client.renew(lease.id)).id == lease.id
                await lease.run("true", env={"A": "b"})
                done = await lease.run("env", capture=True)
                assert b"wfk_" not in done.stdout
        nobody = wharfinger.Settings.from_environment(env, retry_for=0.0)
        async with wharfinger.Client(settings=nobody) as client:
            with pytest.raises(wharfinger.StateError) as refused:
                async with client.lease("here"):
                    pass
            assert refused.value.reason == "NO_CREDENTIALS" and refused.value.is_unauthenticated
        # A server that the machine's authorities do not know.
        strangers = wharfinger.Settings.from_environment({"WHARFINGER_SERVER": server}, retry_for=0.0)
        async with wharfinger.Client(settings=strangers) as client:
            with pytest.raises(wharfinger.Unavailable):
                await client.server()
        missing = wharfinger.Settings.from_environment({**env, "WHARFINGER_CA_FILE": str(tmp_path / "nothing.pem")})
        with pytest.raises(wharfinger.TlsError, match="nothing.pem cannot be read"):
            wharfinger.Client(settings=missing)

    with farm(more=more) as (broker, _):
        asyncio.run(work(broker.address))
