"""A broker, two hosts with a real sshd each, and working copies of a small repository on them.

Everything listens on 127.90.0.0/16 or 127.0.0.1 and lies in one folder. Each process that a farm starts is ended by its id.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Longest time in seconds for anything on a busy machine of two cores."""
TTL = 10
"""Seconds after which the lease of a silent holder ends."""

T = TypeVar("T")


def program() -> Path:
    """Path of the program under test: WHARFINGER_PROGRAM, or the one that `cargo test` builds."""
    path = Path(os.environ.get("WHARFINGER_PROGRAM") or ROOT / "target/debug/wharfinger")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: cargo test --test e2e --no-run builds it, or set WHARFINGER_PROGRAM")
    return path


def until(what: str, look: Callable[[], T | None], patience: float = PATIENCE, pause: float = 0.05) -> T:
    """Polls `look` every `pause` seconds until it returns something true, and returns that. Raises TimeoutError after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {patience} s")
        time.sleep(pause)


def children(pid: int) -> Iterator[int]:
    """Processes below this one, itself first."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = task.read_text().split()
        except OSError:
            continue
        for child in below:
            yield from children(int(child))


def kill_tree(pid: int) -> None:
    """Sends SIGKILL to a process and all below it. No process of them is left to start another."""
    seen: list[int] = []
    # Stopped first, so that none makes a child that the list lacks.
    while fresh := [p for p in children(pid) if p not in seen]:
        for p in fresh:
            send(p, signal.SIGSTOP)
        seen += fresh
    for p in seen:
        send(p, signal.SIGKILL)


def processes() -> Iterator[tuple[int, str, str]]:
    """Each process with its working directory and its command line."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                yield int(process.name), os.readlink(process / "cwd"), (process / "cmdline").read_text(errors="replace")
            except OSError:
                continue


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def free_port(address: str) -> int:
    """A port that no process has, below those that the kernel gives to connections."""
    while True:
        port = random.randint(12_000, 31_999)
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port


def listens(address: str, port: int) -> bool:
    """Whether a process listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


class Host:
    """A host: an sshd of its own at an address of its own. Root logs in with the key of the farm."""

    def __init__(self, name: str, address: str, folder: Path, key: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        folder.mkdir()
        # A power cut leaves temporary files of its commands: they go with the farm.
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        self.port = free_port(address)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / "key"], check=True)
        shutil.copy(key.with_suffix(".pub"), folder / "authorized_keys")
        (folder / "config").write_text(
            f"ListenAddress {address}:{self.port}\nHostKey {folder}/key\nPidFile none\nAuthorizedKeysFile {folder}/authorized_keys\n"
            "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"MaxStartups 100\nLogLevel ERROR\nUseDNS no\nSetEnv TMPDIR={folder}/tmp\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts its sshd, and waits until it listens. Root's own start-up files are no part of the host."""
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        script = '[ ! -e /root/.bashrc ] || mount --bind /dev/null /root/.bashrc; exec /usr/sbin/sshd -D -e -f "$1"'
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", script, "sh", self.folder / "config"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until(f"sshd of {self.name}", lambda: listens(self.address, self.port))

    def kill(self) -> None:
        """Ends the host as a power cut would: its sshd, its sessions and all that they started, at once."""
        if self.process is not None:
            kill_tree(self.process.pid)
            self.process.wait()
            self.process = None

    def toml(self) -> str:
        """Its entry in the inventory of a pool."""
        kind, key = (self.folder / "key.pub").read_text().split()[:2]
        return (
            f'[[pool.ssh.host]]\nname = "{self.name}"\naddress = "{self.address}"\nport = {self.port}\n'
            f'host_key = "{kind} {key}"\n'
        )


class Farm:
    """The whole of it: pool `hosts` with the hosts `a` and `b`, and pool `copies` with working copies on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = program()
        self.control = folder / "control"
        self.work = folder / "work"
        self.config = folder / "wharfinger.toml"
        self.broker: subprocess.Popen[bytes] | None = None
        self.hosts: dict[str, Host] = {}
        for made in (self.control, self.work, folder / "home", folder / "bin", folder / "tmp"):
            made.mkdir(parents=True)
        (folder / "bin/wharfinger").symlink_to(self.program)
        self._repository()
        key = folder / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
        net, ends = random.randint(1, 250), random.sample(range(1, 250), 2)
        try:
            for name, end in zip("ab", ends, strict=True):
                self.hosts[name] = Host(name, f"127.90.{net}.{end}", folder / f"host-{name}", key)
            self.port = free_port("127.0.0.1")
            self.server = f"127.0.0.1:{self.port}"
            self._configure(key, self._token("ci", "agent") + self._token("test", "admin"))
            self.start_broker()
        except BaseException:
            self.close()
            raise

    def _repository(self) -> None:
        origin = self.folder / "origin"
        origin.mkdir()
        shutil.copy(Path(__file__).parent / "job.sh", origin / "job.sh")
        self.git("init", "-q", "-b", "main")
        self.commit_to_origin({})

    def git(self, *args: str) -> str:
        """Runs git in the repository of the work, and returns what it prints."""
        git = ["git", "-C", self.folder / "origin", "-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run([*git, *args], check=True, env=self.env(), capture_output=True, text=True).stdout.strip()

    def commit_to_origin(self, files: dict[str, str]) -> str:
        """Writes files into the repository of the work, and returns the new commit."""
        for name, text in files.items():
            path = self.folder / "origin" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", "work")
        return self.git("rev-parse", "HEAD")

    def _token(self, name: str, role: str) -> str:
        """Makes a token in a file of the farm, and returns the lines of the configuration that know it."""
        command = [self.program, "token", "new", "--expires", "never", "--tenant", "web", "--role", role, name]
        made = subprocess.run(command, check=True, capture_output=True, text=True, env=self.env())
        path = self.folder / f"token-{name}"
        path.touch(0o600)
        path.write_text(made.stdout)
        _, head, rest = made.stderr.partition("[[auth.token]]\n")
        return head + rest.partition("\n\n")[0] + "\n"

    def _configure(self, key: Path, callers: str) -> None:
        inventory = "".join(host.toml() for host in self.hosts.values())
        self.config.write_text(
            f'[server]\nlisten = "{self.server}"\nstop_grace = "2s"\n[store]\npath = "w.db"\n[limits]\ngrace = "5s"\n{callers}'
            f'[[pool]]\nname = "hosts"\nadapter = "ssh"\n[pool.ssh]\nuser = "root"\nkey = "{key}"\nholder_key = "{key}"\n'
            f'work_dir = "{self.work}"\n{inventory}'
            f'[[pool]]\nname = "copies"\nadapter = "copies"\non = "hosts"\nmax = 2\ndefault_ttl = "{TTL}s"\n'
            f'[pool.copies]\nrepository = "{self.folder}/origin"\n'
        )

    def env(self, **more: str) -> dict[str, str]:
        """Environment of a process of the farm: the token of an agent, and nothing of the caller's settings, CI products or proxies."""
        own = {"WHARFINGER_AUTH_TOKEN_FILE": str(self.folder / "token-ci")}
        own |= {"HOME": str(self.folder / "home"), "LC_ALL": "C.UTF-8", "TMPDIR": str(self.folder / "tmp")}
        own["PATH"] = f"{self.folder}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return own | more

    def start_broker(self) -> None:
        """Starts the broker on its database, and waits until it answers."""
        with (self.folder / "broker.log").open("ab") as log:
            self.broker = subprocess.Popen(
                [self.program, "serve", "--config", self.config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env(), start_new_session=True,
            )  # fmt: skip
        until("the broker", lambda: listens("127.0.0.1", self.port) and self.cli("pools").returncode == 0)

    def restart_broker(self) -> None:
        """Kills the broker, and starts it again, with the configuration that is in `config` by now."""
        assert self.broker is not None
        self.broker.kill()
        self.broker.wait()
        self.start_broker()

    def close(self) -> None:
        """Ends all that the farm has started."""
        if self.broker is not None:
            kill_tree(self.broker.pid)
            self.broker.wait()
        for host in self.hosts.values():
            host.kill()
        until("the end of what ran on the hosts", lambda: not [send(pid, signal.SIGKILL) for pid in self._of_hosts()])

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs the program against the broker, as an administrator."""
        command = [str(self.program), "--server", self.server, *args]
        env = self.env(WHARFINGER_AUTH_TOKEN_FILE=str(self.folder / "token-test"))
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=env, check=False)

    def json(self, *args: str) -> Any:
        """The document that a verb prints."""
        done = self.cli("--json", *args)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return json.loads(done.stdout)

    def leases(self) -> list[dict[str, Any]]:
        """All leases that the jobs asked for, the first one first. A copy's own lease of its host has a child."""
        found = [lease for lease in self.json("ls", "--all")["leases"] if lease["child_resource_id"] is None]
        return sorted(found, key=lambda lease: (lease["created_at"], lease["id"]))

    def on_hosts(self) -> list[int]:
        """Processes that have their working directory on a host."""
        return [pid for pid, where, _line in processes() if where.startswith(f"{self.work}/")]

    def _of_hosts(self) -> list[int]:
        """The same, and those that name a path of a host, as the broker's own work there does."""
        below = f"{self.work}/"
        return [pid for pid, where, line in processes() if where.startswith(below) or below in line]

    # What the work does, and what it has noted. See job.sh.

    def plan(self, mode: str) -> None:
        """Tells the work what to do in its first attempt: `succeed`, `fail` or `wait`. Later attempts succeed."""
        (self.control / "mode").write_text(mode)

    def let_go(self) -> None:
        """Lets a first attempt that waits succeed."""
        (self.control / "go").touch()

    def attempts(self) -> list[dict[str, Any]]:
        """Attempts that began to work: `at` in seconds, `lease`, `address` of the host, `path` of the lease."""
        try:
            lines = (self.control / "attempts").read_text().splitlines()
        except FileNotFoundError:
            return []
        keys = ("at", "lease", "address", "path")
        return [dict(zip(keys, line.split(" ", 3), strict=True)) | {"at": float(line.split(" ", 1)[0])} for line in lines]

    def first_attempt(self) -> dict[str, Any]:
        """The first attempt, as soon as it works."""
        return until("the first attempt", self.attempts)[0]

    def host_of(self, attempt: dict[str, Any]) -> Host:
        """The host on which an attempt works."""
        return next(host for host in self.hosts.values() if host.address == attempt["address"])

    def command(self) -> str:
        """The work, as a line for a shell in a working copy."""
        return f"./job.sh {self.control}"
