"""Logins by certificate: a pool whose hosts trust an authority, and holders with keys of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
import wharfinger
import wharfinger.sync
from farm import PATIENCE, Broker, Process, free_port, listens, program, until

PRELUDE = """
set -e
cd "$1"
mkdir -p etc run lib var
[ -e etc/passwd ] || cp -a /etc/. etc/
mount --bind etc /etc
mount --bind run /run
mount --bind lib /usr/local/lib
mount --bind var /var/lib
mkdir -p /run/sshd
WHARFINGER_NO_RELOAD=yes /bin/sh setup.sh >&2
[ ! -e /root/.bashrc ] || mount --bind /dev/null /root/.bashrc
exec /usr/sbin/sshd -D -e -f "$2"
"""
"""The host: `wharfinger host-setup` has prepared it, in directories of its own."""


def key(path: Path) -> str:
    """Makes a key, and returns its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return Path(f"{path}.pub").read_text().strip()


@contextlib.contextmanager
def certified(folder: Path) -> Iterator[Broker]:
    """A broker with pool `farm`: one host, which lets holders in by certificates of its authority alone."""
    address = f"127.90.{random.SystemRandom().randrange(1, 250)}.9"
    port = free_port(address)
    host, own = folder / "host", folder / "own"
    for made in (host, own):
        made.mkdir()
    host_key = key(host / "key")
    (host / "authorized_keys").write_text(key(folder / "broker"))
    key(folder / "user_ca")
    pools = (
        f'[[pool]]\nname = "farm"\nadapter = "ssh"\n[pool.ssh]\nwork_dir = "{folder}/work"\nuser = "root"\nkey = "{folder}/broker"\n'
        f'[pool.ssh.ca]\nkey = "{folder}/user_ca"\nuser = "root"\n'
        f'[[pool.ssh.host]]\nname = "a"\naddress = "{address}"\nport = {port}\nhost_key = "{host_key}"\n'
    )
    config = folder / "setup.toml"
    config.write_text(pools)
    script = subprocess.run([program(), "host-setup", config], check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
    (own / "setup.sh").write_text(script)
    (host / "conf").write_text(
        f"ListenAddress {address}\nPort {port}\nHostKey {host}/key\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {host}/authorized_keys\nPermitRootLogin yes\nPasswordAuthentication no\nLogLevel VERBOSE\n"
        "Include /etc/ssh/sshd_config.d/10-wharfinger-farm.conf\n"
    )
    sshd = Process(["unshare", "-m", "sh", "-c", PRELUDE, "sh", str(own), str(host / "conf")], host / "log")
    broker = None
    try:
        until(lambda: listens(address, port), "the host")
        broker = Broker(folder, pools=pools)
        broker.ready("farm", 1)
        yield broker
    except BaseException:
        print(f"---- the host's log ----\n{(host / 'log').read_text()[-4000:]}")
        print(f"---- the server's log ----\n{broker.log[-4000:] if broker else 'none'}")
        raise
    finally:
        if broker is not None:
            broker.kill()
        sshd.kill()


def test_holders_log_in_with_certificates_of_their_leases(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    mine = tmp_path / "mine"
    key(mine)

    async def work(address: str) -> None:
        async with wharfinger.Client(address) as client:
            async with client.lease("farm") as lease:
                assert lease.access.more["login"] == "certificate" and not lease.message.credentials.private_key
                done = await lease.run("sh", "-c", 'echo "$WHARFINGER_LEASE $PWD"', capture=True)
                assert done.stdout.decode().split() == [lease.id, lease.path]
                # With the holder's own key, which the host does not know.
                done = await lease.run("sh", "-c", 'printf "%s" "$WHARFINGER_TOKEN"', capture=True, identity=str(mine))
                assert done.stdout.decode() == str(lease.token)
                answer = await client.login(lease.id, Path(f"{mine}.pub").read_text().strip())
                with pytest.raises(subprocess.CalledProcessError) as failed:
                    await lease.run("sh", "-c", "exit 7")
                assert failed.value.returncode == 7
            assert lease.released is not None and lease.released.outcome == wharfinger.OUTCOME_OK
            # The certificate opens nothing after the lease, and there is no other.
            Path(f"{mine}-cert.pub").write_text(f"{answer.certificate.strip()}\n")
            command = ["ssh", "-F", "/dev/null", "-i", mine, "-p", str(answer.port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
            command += ["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", f"{answer.user}@{answer.address}", "true"]
            refused = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE)
            assert refused.returncode in (113, 255), refused
            with pytest.raises(wharfinger.StateError):
                await client.login(lease.id, Path(f"{mine}.pub").read_text().strip())

    with certified(tmp_path) as broker:
        asyncio.run(work(broker.address))
        with wharfinger.sync.Client(broker.address) as client, client.lease("farm") as lease:
            assert lease.run("printf", "x", capture=True).stdout == b"x"
