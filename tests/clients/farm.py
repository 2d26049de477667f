"""A broker with hosts, for the tests of the clients: the local machine, or real sshd on addresses of loopback."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Longer than anything should take on a busy two-core machine, in seconds."""

T = TypeVar("T")


def program() -> str:
    """The program under test."""
    given = os.environ.get("WHARFINGER_PROGRAM")
    found = Path(given) if given else ROOT / "target" / "debug" / "wharfinger"
    if not found.exists():
        raise FileNotFoundError(f"{found} is missing: build it, or name it in WHARFINGER_PROGRAM")
    return str(found)


def until(found: Callable[[], Optional[T]], what: str, patience: float = PATIENCE) -> T:
    """Polls until there is something."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise TimeoutError(f"in vain waited for: {what}")


def free_port(address: str = "127.0.0.1") -> int:
    """A port that lies below those that the kernel gives to connections."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as tried:
            with contextlib.suppress(OSError):
                tried.bind((address, port))
                return port


class Process:
    """A process with its group. ``kill`` ends both, and waits."""

    def __init__(self, argv: list[str], log: Path, **more: Any) -> None:
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **more
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def kill(self, sent: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, sent)
        self.popen.wait(PATIENCE)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    return [pid, *(each for child in children(pid) for each in descendants(child))]


def has_mark(pid: int) -> bool:
    """Whether the Python client started it under a lease."""
    with contextlib.suppress(OSError):
        return b"WHARFINGER_RUN=" in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def members(group: int) -> list[int]:
    """The processes of a group that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


class Host:
    """A real sshd on an address of its own. Its sessions run as this user."""

    def __init__(self, folder: Path, name: str, address: str, client: Path) -> None:
        self.name, self.address, self.folder = name, address, folder / name
        self.folder.mkdir()
        self.port = free_port(address)
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
        self.host_key = (self.folder / "key.pub").read_text().strip()
        shutil.copy(f"{client}.pub", self.folder / "authorized_keys")
        (self.folder / "conf").write_text(
            f"ListenAddress {address}\nPort {self.port}\nHostKey {key}\nPidFile none\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPermitRootLogin yes\nPasswordAuthentication no\n"
            # The user's own start-up files are no part of a test: bash reads them at each login.
            f"MaxStartups 100\nMaxSessions 100\nLogLevel ERROR\nSetEnv HOME={self.folder}\n"
        )
        self._sshd: Optional[Process] = None
        self._frozen: list[int] = []
        self.up()

    def up(self) -> None:
        """Starts sshd."""
        Path("/run/sshd").mkdir(exist_ok=True)
        self._sshd = Process(["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "conf")], self.folder / "log")
        until(lambda: listens(self.address, self.port), f"sshd of {self.name}")

    def kill(self) -> None:
        """The host dies: sshd, all sessions, and all that they run."""
        if self._sshd is not None:
            for pid in [*descendants(self._sshd.pid), *self._frozen]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._sshd.popen.wait(PATIENCE)
            self._sshd = None

    def freeze(self) -> None:
        """The host dies, and its holders do not hear of it: their connections stay open, and nothing answers on them."""
        if self._sshd is not None:
            sessions = [descendants(pid) for pid in children(self._sshd.pid)]
            held = [pid for session in sessions for pid in session if any(has_mark(each) for each in session)]
            self._frozen = [pid for pid in held if pid != self._sshd.pid]
            for pid in self._frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            for pid in descendants(self._sshd.pid):
                if pid not in self._frozen:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self._sshd.popen.wait(PATIENCE)

    def toml(self) -> str:
        return (
            f'[[pool.ssh.host]]\nname = "{self.name}"\naddress = "{self.address}"\nport = {self.port}\n'
            f'host_key = "{self.host_key}"\n'
        )


def listens(address: str, port: int) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), timeout=1).close()
        return True
    return False


class Broker:
    """A running `wharfinger serve`, with pool `here` of this machine and, with hosts, pool `hosts`."""

    def __init__(self, folder: Path, *, slots: int = 4, hosts: list[Host] = [], client: Optional[Path] = None, more: str = "", pools: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        doubt = (
            '[pool.doubt]\nprobe_interval = "1s"\nretry_interval = "100ms"\nmisses = 2\nover = "200ms"\nfalse_alarm = "never"\n'
        )
        text = f'[server]\nlisten = "{self.address}"\n[store]\npath = "w.db"\n[limits]\ngrace = "5s"\n{more}\n'
        text += f'[[pool]]\nname = "here"\nadapter = "local"\nslots = {slots}\nmin_ready = 1\n{doubt}[pool.local]\nroot = "scratch"\n'
        if hosts:
            text += f'[[pool]]\nname = "hosts"\nadapter = "ssh"\nslots = {slots}\n{doubt}'
            text += f'[pool.ssh]\nuser = "root"\nkey = "{client}"\nholder_key = "{client}"\nwork_dir = "{folder}/work"\n'
            text += "".join(host.toml() for host in hosts)
        text += pools
        self.config = folder / "w.toml"
        self.config.write_text(text)
        self._process: Optional[Process] = None
        self.up()

    @property
    def log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "serve.log").read_text()
        return ""

    def up(self) -> None:
        """Starts the server."""
        env = {**os.environ, "WHARFINGER_LOG": "info"}
        self._process = Process([program(), "serve", "--config", str(self.config)], self.folder / "serve.log", env=env)

        def serves() -> bool:
            assert self._process is not None
            if self._process.popen.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.log}")
            return listens("127.0.0.1", self.port)

        until(serves, "the server")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def cli(self, *argv: str, check: bool = True) -> str:
        """Runs a verb of the command line, and returns its standard output."""
        done = subprocess.run(
            [program(), "--server", self.address, *argv], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{argv} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def get(self, lease: str) -> dict[str, Any]:
        """A lease as JSON."""
        found: dict[str, Any] = json.loads(self.cli("--json", "get", lease))
        return found.get("lease", found)

    def leases(self) -> list[dict[str, Any]]:
        """All leases as JSON, also those that have ended."""
        text = self.cli("--json", "ls", "--all")
        found = json.loads(text) if text.lstrip().startswith(("[", "{")) and "\n{" not in text.strip() else [
            json.loads(line) for line in text.splitlines()
        ]
        return list(found.get("leases", [found]) if isinstance(found, dict) else found)

    def ready(self, pool: str, count: int) -> None:
        """Waits until so many resources of a pool are READY."""

        def enough() -> bool:
            lines = [line.split() for line in self.cli("resources").splitlines()]
            return sum("READY" in words and pool in words for words in lines) >= count

        until(enough, f"{count} resources of {pool}")


@contextlib.contextmanager
def farm(*, hosts: int = 0, slots: int = 4, more: str = "", pools: str = "") -> Iterator[tuple[Broker, list[Host]]]:
    """A broker with so many hosts."""
    folder = Path(tempfile.mkdtemp(prefix="wharfinger-clients."))
    made: list[Host] = []
    broker: Optional[Broker] = None
    try:
        client = folder / "client"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", client], check=True)
        lane = random.SystemRandom().randrange(1, 250)
        for n in range(hosts):
            made.append(Host(folder, "ab"[n], f"127.90.{lane}.{n + 1}", client))
        broker = Broker(folder, slots=slots, hosts=made, client=client, more=more, pools=pools)
        if hosts:
            broker.ready("hosts", hosts)
        yield broker, made
    except BaseException:
        if broker is not None:
            print(f"---- the server's log ----\n{broker.log[-8000:]}")
        raise
    finally:
        if broker is not None:
            broker.kill()
        for host in made:
            host.kill()
        # A process that ends now may still write.
        for _ in range(50):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)
