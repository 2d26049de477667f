"""Commands on the leased host: on this machine, or over OpenSSH with the pinned key of the host; behind the fence of the slot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import timezone
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Mapping, Optional, Sequence, Type, Union

from wharfinger.v1 import types_pb2

from .address import parse_addresses
from .credentials import is_secret
from .errors import HostError, NotFound, StateError

if TYPE_CHECKING:
    from .client import Client
    from .lease import Lease

REFUSED = 113
"""Exit code of a command that the fence refused. A command may use the same one."""
_NO_CONNECTION = 255
"""Exit code of ssh without a connection. A command may use the same one."""
_GRACE = 2.0
"""Time between SIGTERM and SIGKILL, in seconds."""
_LONGEST = 100_000
"""Maximum length of a command with its environment, in bytes: a word of a command has at most 128 KiB on Linux."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended."""

    returncode: int
    """Its code; negative, the signal that ended it."""
    stdout: bytes = b""
    """Its output, if it was captured."""
    stderr: bytes = b""
    """Its messages, if they were captured."""


def number(lease: str) -> int:
    """The number by which a lease's processes are found when their environment cannot be read: FNV-1a of the id, 61 bits."""
    hash = 0xCBF29CE484222325
    for byte in lease.encode():
        hash = ((hash ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return (hash >> 3) | 1 << 61


def variables(lease: types_pb2.Lease, server: str) -> dict[str, str]:
    """The variables of every command that runs under a lease: those of `wharfinger run`."""
    access = lease.access
    found = {
        "LEASE": lease.id,
        "TOKEN": str(lease.fencing_token),
        "RESOURCE": lease.resource_id,
        "POOL": lease.pool,
        "SERVER": server,
        "PATH": access.path,
        "COMMIT": access.commit,
        "BASE": access.base,
        "FENCE": access.fence,
        "ROOT": access.root,
    }
    if lease.HasField("ends_at"):
        at = lease.ends_at.ToDatetime(timezone.utc)
        found["ENDS_AT"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for key, value in access.more.items():
        if key.startswith("commit."):
            found[re.sub("[^A-Z0-9]", "_", key.upper())] = value
    return {f"WHARFINGER_{name}": value for name, value in found.items() if value}


@dataclass
class Local:
    """The host is this machine."""

    guarded: bool = True


@dataclass
class Ssh:
    """The host is reached over OpenSSH."""

    command: list[str]
    """Words of ssh, up to the name of the host."""
    folder: Path
    """Directory of this command's files."""
    guarded: bool


Way = Union[Local, Ssh]


async def way(lease: "Lease", *, identity: Optional[str], allow_proxy_command: bool) -> Way:
    """Returns the way to the host of an active lease. Raises ``HostError``."""
    message = lease.message
    via = message.access.WhichOneof("via")
    if via == "local":
        own = _boot_id()
        if message.access.boot_id and own and message.access.boot_id != own:
            raise HostError(
                "the leased host is the machine that the broker runs on, and this is another: run this there, or lease from a pool "
                "of ssh machines"
            )
        return Local()
    if via != "ssh":
        raise HostError(f"nothing can run on {message.resource_id}: this version knows no way to it")
    folder = Path(tempfile.mkdtemp(prefix="wharfinger-", dir=os.environ.get("XDG_RUNTIME_DIR") or None))
    try:
        return await _ssh(lease, folder, identity, allow_proxy_command)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@dataclass
class Login:
    """A way to log in to a host. Its files are in a directory that its user alone can read."""

    address: str
    port: int
    user: str
    known_hosts: Path
    """The host's keys, under the id of the lease."""
    key: Optional[Path]
    certificate: Optional[Path]
    again_in: Optional[float] = None
    """Seconds until the certificate is to be renewed."""


async def login(client: "Client", message: types_pb2.Lease, folder: Path, identity: Optional[str] = None) -> Login:
    """Writes what ssh needs for the host of an active lease. Again for the same directory, it renews the certificate."""
    ssh = message.access.ssh
    certified = message.access.more.get("login") == "certificate"
    address, port, user, keys = ssh.address, ssh.port, ssh.user, [ssh.host_key]
    key: Optional[Path] = None
    again_in: Optional[float] = None
    if certified:
        key = folder / "key"
        if identity is not None:
            shutil.copyfile(identity, key)
            key.chmod(0o600)
            shutil.copyfile(f"{identity}.pub", f"{key}.pub")
        elif not key.exists():
            made = await asyncio.create_subprocess_exec(
                "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key), stdin=subprocess.DEVNULL
            )
            if await made.wait() != 0:
                raise HostError("ssh-keygen made no key")
        answer = await client.login(message.id, (folder / "key.pub").read_text().strip())
        _write(folder / "key-cert.pub", f"{answer.certificate.strip()}\n")
        address, port, user, keys = answer.address, answer.port, answer.user, list(answer.host_keys)
        # Half of its life, by the server's clock alone.
        again_in = float(max(answer.valid_before.seconds - answer.renew_at.seconds, 5))
    elif identity is not None:
        key = Path(identity)
    elif message.credentials.private_key:
        key = folder / "key"
        # ssh does not take a key without its last line break.
        _write(key, message.credentials.private_key.rstrip("\n") + "\n")
    elif message.HasField("missing_credentials"):
        raise HostError(f"there is no key to log in to {address} with: {message.missing_credentials.detail}")
    _check(address, port, user, keys)
    _write(folder / "known_hosts", "".join(f"{message.id} {line}\n" for line in keys))
    certificate = folder / "key-cert.pub" if certified else None
    return Login(address, port, user, folder / "known_hosts", key, certificate, again_in)


def _write(path: Path, text: str) -> None:
    """Writes a file that its user alone can read, aside and by rename."""
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    aside.rename(path)


async def _ssh(lease: "Lease", folder: Path, identity: Optional[str], allow_proxy_command: bool) -> Ssh:
    message = lease.message
    files = await login(lease.client, message, folder, identity)
    settings = {
        "Port": str(files.port),
        "User": files.user,
        "HostName": files.address,
        "UserKnownHostsFile": f'"{files.known_hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": message.id,
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "BatchMode": "yes",
        "ClearAllForwardings": "yes",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        # Leaves a mark once the connection stands: 255 is ssh's own code and a command's.
        "PermitLocalCommand": "yes",
        "LocalCommand": f": >{shlex.quote(str(folder / 'stood'))}",
    }
    if files.key is not None:
        settings.update(IdentityFile=f'"{files.key}"', IdentitiesOnly="yes")
    if files.certificate is not None:
        settings["CertificateFile"] = f'"{files.certificate}"'
    ssh = message.access.ssh
    if ssh.proxy_command:
        if not (allow_proxy_command or _proven(lease.client.settings.server)):
            raise HostError(
                f"the server says to reach {files.address} by a command ({ssh.proxy_command!r}), and nothing proves who that server is: "
                "allow_proxy_command=True if the network up to the server is trusted"
            )
        settings["ProxyCommand"] = ssh.proxy_command
    command = ["ssh", "-F", "none", "-T"]
    for name, value in settings.items():
        command += ["-o", f"{name}={value}"]
    return Ssh([*command, message.id], folder, guarded=files.certificate is None)


def _check(address: str, port: int, user: str, keys: Sequence[str]) -> None:
    """All values go into files and command lines."""
    if not re.fullmatch(r"[A-Za-z0-9.:_%][A-Za-z0-9.:_%-]*", address):
        raise HostError(f"the address {address!r} is none")
    if not re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._-]*", user):
        raise HostError(f"the user {user!r} is none")
    if not 0 < port < 65536:
        raise HostError(f"the port {port} is none")
    if not keys or not all(re.fullmatch(r"[!-~]+ [ -~]+", key) for key in keys):
        raise HostError("the host has no key")


def _proven(server: str) -> bool:
    """Whether each server is on this machine or proves itself by TLS."""
    return all(
        found.is_private or found.is_here or found.host == "localhost" for found in parse_addresses(server)
    )


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _guard() -> str:
    return resources.files("wharfinger").joinpath("sh", "guard.sh").read_text()


def _guarded(lease: types_pb2.Lease, argv: Sequence[str]) -> list[str]:
    """The command behind the fence: it ends with ``REFUSED`` if the slot is another lease's."""
    if not lease.access.fence:
        return list(argv)
    words = ["/bin/sh", "-c", _guard(), "wharfinger-fence", lease.access.fence]
    return [*words, str(lease.fencing_token), str(number(lease.id)), *argv]


def remote_line(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
    """Returns a command as one line for the login shell of a host, whichever it is: its words have letters, digits and ``\\`` alone."""
    words = ["env", *(f"{name}={value}" for name, value in env.items()), *argv]
    line = f"cd {shlex.quote(cwd)} && exec {shlex.join(words)}" if cwd else f"exec {shlex.join(words)}"
    raw = line.encode(errors="surrogateescape")
    if len(raw) > _LONGEST:
        raise ValueError(f"the command has {len(raw)} bytes with its environment, and at most {_LONGEST}: use a file, or `input`")
    escaped = "".join(chr(b) if chr(b).isascii() and chr(b).isalnum() else f"\\0{b:03o}" for b in raw)
    return f"exec /bin/sh -c 'wf_w=$(printf %b \"$1\"); eval \"$wf_w\"' wharfinger '{escaped}'"


class Running:
    """A command that runs. The end of its ``async with`` kills it."""

    def __init__(self, process: asyncio.subprocess.Process, way: Way, mark: str, capture: bool) -> None:
        self.process = process
        """The process on this machine: the command, or its ssh."""
        self._way, self._mark, self._capture = way, mark, capture
        self._lease: "Optional[Lease]" = None

    @property
    def stood(self) -> bool:
        """Whether a connection to the host was established."""
        return isinstance(self._way, Local) or (self._way.folder / "stood").exists()

    async def __aenter__(self) -> "Running":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.end()

    async def complete(self, input: Optional[bytes] = None, *, check: bool = True) -> Completed:
        """Waits for its end. ``check``: raises ``subprocess.CalledProcessError`` if it does not end with 0."""
        stdout, stderr = await self.process.communicate(input)
        code = self.process.returncode
        assert code is not None
        if self._lease is not None:
            await _look_at(self._lease, self, code)
        if check and code != 0:
            argv = self._argv
            raise subprocess.CalledProcessError(code, argv, stdout if self._capture else None, stderr if self._capture else None)
        return Completed(code, stdout or b"", stderr or b"")

    async def end(self) -> None:
        """Kills it and what it started: SIGTERM, and SIGKILL after two seconds."""
        try:
            if self.process.returncode is None:
                await self._kill()
        finally:
            if isinstance(self._way, Ssh):
                shutil.rmtree(self._way.folder, ignore_errors=True)

    async def _kill(self) -> None:
        lost = self._lease is not None and (self._lease.lost or self._lease.is_lost)
        if isinstance(self._way, Ssh) and self.stood and not lost:
            await self._kill_there(self._way)
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sent)
            try:
                async with asyncio.timeout(_GRACE):
                    await self.process.wait()
                break
            except TimeoutError:
                continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def _kill_there(self, way: Ssh) -> None:
        """ssh tells the host nothing of its end. After the end of the lease the broker ends what is left."""
        script = (
            "for wf_s in TERM KILL; do wf_n=0; for wf_p in /proc/[0-9]*; do "
            "if tr '\\0' '\\n' <\"$wf_p/environ\" 2>/dev/null | grep -qx \"WHARFINGER_RUN=$1\"; then "
            'kill -s "$wf_s" "${wf_p#/proc/}" 2>/dev/null; wf_n=1; fi; done; [ $wf_n = 1 ] || exit 0; sleep 1; done'
        )
        line = remote_line(["/bin/sh", "-c", script, "sh", self._mark], {}, "")
        with contextlib.suppress(OSError, TimeoutError):
            killer = await asyncio.create_subprocess_exec(
                *way.command, line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                async with asyncio.timeout(_GRACE + 2):
                    await killer.wait()
            finally:
                if killer.returncode is None:
                    killer.kill()

    _argv: Sequence[str] = ()


async def start(
    way: Way,
    lease: types_pb2.Lease,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Optional[str],
    *,
    capture: bool,
    input: bool,
    of: "Optional[Lease]" = None,
) -> Running:
    """Starts a command on the host. ``of``: the lease that it belongs to."""
    if not argv:
        raise ValueError("a command has at least one word")
    mark = secrets.token_hex(8)
    env = {**env, "WHARFINGER_RUN": mark}
    folder = os.path.join(lease.access.path, cwd or "") if lease.access.path else cwd or ""
    command = _guarded(lease, argv) if way.guarded else list(argv)
    pipe = subprocess.PIPE if capture else None
    own = {name: value for name, value in os.environ.items() if not is_secret(name)}
    try:
        process = await asyncio.create_subprocess_exec(
            *(command if isinstance(way, Local) else [*way.command, remote_line(command, env, folder)]),
            stdin=subprocess.PIPE if input else subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            cwd=(folder or None) if isinstance(way, Local) else None,
            env={**own, **env} if isinstance(way, Local) else own,
            start_new_session=True,
        )
    except OSError as error:
        if isinstance(way, Ssh):
            shutil.rmtree(way.folder, ignore_errors=True)
        raise HostError(f"{argv[0]} is not started: {error}") from error
    running = Running(process, way, mark, capture)
    running._argv = list(argv)
    running._lease = of
    return running


async def _look_at(lease: "Lease", running: Running, code: int) -> None:
    """Raises ``LeaseBroken`` or ``HostError`` if it was not the command that ended with this code."""
    if code == REFUSED:
        with contextlib.suppress(NotFound, StateError):
            lease.take(await lease.client.get(lease.id))
        lease.check()
    elif code == _NO_CONNECTION and isinstance(running._way, Ssh):
        await lease.until_checked("ssh ended with 255", unreached=True)
        lease.check()
        if not running.stood:
            address = lease.message.access.ssh.address
            raise HostError(f"{address} cannot be reached from here, or does not take the key: see the messages of ssh")
