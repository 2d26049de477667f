"""Verbs for programs that fork, such as Ansible: ``python -m wharfinger VERB``, with JSON on standard input and output.

* ``lease``: leases, waits, and keeps the lease while process ``while_pid`` lives.
* ``release``, ``leases``, ``report``, ``explain``: as in the API.
* ``keep``: renews one lease while process ``while_pid`` lives. Ends with it, and releases nothing.

A failure is ``{"error": TEXT, "reason": …}`` and exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Optional

from google.protobuf import json_format

from . import host
from .client import Client
from .errors import CallError, HostError, LeaseBroken, WharfingerError
from .keeper import Keeper, is_over, may_work, state_name
from .settings import Settings
from .v1 import types_pb2


def folder_of(lease: str, make: bool = True) -> Path:
    """The directory with the files of a lease. Its name can be guessed, so that it must be this user's alone."""
    above = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"wharfinger-ansible-{os.geteuid()}"
    for folder in (above, above / lease) if make else ():
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise HostError(f"{folder} is not this user's alone")
    return above / lease


async def described(client: Client, lease: types_pb2.Lease) -> dict[str, Any]:
    """A lease for programs, with the variables by which Ansible reaches its host. Holds no secret."""
    found: dict[str, Any] = {
        "id": lease.id,
        "state": state_name(lease),
        "pool": lease.pool,
        "resource": lease.resource_id,
        "path": lease.access.path,
        "commit": lease.access.commit,
        "fencing_token": str(lease.fencing_token),
        "holder": lease.holder,
        "tags": dict(lease.tags),
        "labels": dict(lease.selector.labels),
    }
    if not may_work(lease):
        return found
    variables: dict[str, Any] = {f"wharfinger_{name}": found[name] for name in ("pool", "resource", "path", "commit")}
    variables["wharfinger_lease"] = lease.id
    via = lease.access.WhichOneof("via")
    if via == "local":
        variables["ansible_connection"] = "local"
    elif via == "ssh":
        files = await host.login(client, lease, folder_of(lease.id))
        mux = folder_of(lease.id) / "m"
        options = {
            "UserKnownHostsFile": str(files.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": lease.id,
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            # A connection of a former lease of the host is none of this one. The name of a socket has at most 108 bytes.
            "ControlPath": str(mux) if len(str(mux)) < 85 else "none",
        }
        if files.key is not None:
            options["IdentitiesOnly"] = "yes"
            variables["ansible_ssh_private_key_file"] = str(files.key)
        if files.certificate is not None:
            options["CertificateFile"] = str(files.certificate)
        variables.update(
            ansible_connection="ssh",
            ansible_host=files.address,
            ansible_port=files.port,
            ansible_user=files.user,
            ansible_ssh_common_args=" ".join(f"-o {name}={value}" for name, value in options.items()),
        )
    return {**found, "host_vars": variables}


async def lease(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """Leases, and keeps the lease."""
    pid = given.pop("while_pid", None)
    wanted = client.lease(**{name: value for name, value in given.items() if value is not None})
    # The keeper of this process ends with it; the lease goes on.
    await wanted.__aenter__()
    found = await described(client, wanted.message)
    assert wanted._keeper is not None
    wanted._keeper.stop()
    if pid is not None:
        log = open(folder_of(wanted.id) / "keep.log", "ab")
        keep = subprocess.Popen(
            [sys.executable, "-m", "wharfinger", "keep"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
        assert keep.stdin is not None
        keep.stdin.write(json.dumps({"server": client.settings.server, "lease": wanted.id, "while_pid": pid}).encode())
        keep.stdin.close()
        # It outlives this process.
        keep.returncode = 0
    return found


async def release(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """Ends a lease, and says whose fault a failure was. One that has ended is no failure.

    A failure is reported first: the lease breaks if the check finds its resource unfit.
    """
    outcomes = {
        "ok": types_pb2.OUTCOME_OK,
        "failed": types_pb2.OUTCOME_FAILED,
        "tainted": types_pb2.OUTCOME_TAINTED,
        "abandoned": types_pb2.OUTCOME_ABANDONED,
    }
    outcome = outcomes[given.get("outcome") or "abandoned"]
    before = await client.get(given["lease"])
    changed = not is_over(before)
    after = before
    if changed and outcome == types_pb2.OUTCOME_FAILED:
        after = await _checked(client, before, given.get("note") or "")
    if not is_over(after):
        after = await client.release(given["lease"], outcome, given.get("note") or "", hold=given.get("hold"))
    shutil.rmtree(folder_of(given["lease"], make=False), ignore_errors=True)
    answer = {"changed": changed, "id": after.id, "state": state_name(after), "resource": after.resource_id, "fault": "NONE", "why": ""}
    if after.state == types_pb2.LEASE_STATE_BROKEN:
        broken = LeaseBroken(after, "ended", "")
        answer.update(fault=broken.fault, why=" < ".join(cause.reason for cause in after.causes))
    elif after.finding.fault:
        answer.update(fault=types_pb2.Finding.Fault.Name(after.finding.fault).removeprefix("FAULT_"), why=after.finding.detail)
    return answer


async def _checked(client: Client, before: types_pb2.Lease, note: str) -> types_pb2.Lease:
    """Reports a failure, and waits for the check, at most for ``Settings.check_for`` seconds."""
    kept = Keeper(client, before)
    try:
        async with asyncio.timeout(client.settings.check_for):
            kept.news(await client.report(kept.id, note))
            while kept.lost is None and kept.lease.HasField("doubt"):
                await kept.changed()
    except (TimeoutError, CallError):
        pass
    finally:
        kept.stop()
    return kept.lease


async def leases(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """The caller's own active leases."""
    me = (await client.who_am_i()).principal
    found = []
    async for each in client.list():
        wanted = (not given.get("pools") or each.pool in given["pools"]) and (
            not given.get("holders") or each.holder in given["holders"]
        )
        if may_work(each) and each.principal == me and wanted:
            # The answers of Get alone have credentials.
            found.append(await described(client, await client.get(each.id)))
    return {"leases": found}


async def report(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """Has the resource of a lease checked."""
    after = await client.report(given["lease"], given.get("note") or "", unreached=bool(given.get("unreached")))
    return {"id": after.id, "doubt": after.doubt.detail}


async def explain(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """Why a lease waits, or how it ended."""
    answer = await client.explain(given["lease"])
    causes = [json_format.MessageToDict(cause) for cause in answer.lease.causes]
    return {"summary": answer.summary, "state": state_name(answer.lease), "causes": causes}


async def keep(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """Renews a lease, and its certificate, while a process lives."""
    pid, born = given["while_pid"], _born(given["while_pid"])
    kept = Keeper(client, await client.get(given["lease"]))
    folder = folder_of(kept.id, make=False)
    renew_at = time.monotonic()
    while kept.lost is None and born is not None and _born(pid) == born:
        if time.monotonic() >= renew_at and kept.lease.access.more.get("login") == "certificate" and folder.exists():
            renew_at = time.monotonic() + ((await host.login(client, kept.lease, folder)).again_in or 60.0)
        try:
            async with asyncio.timeout(0.5):
                await kept.changed()
        except TimeoutError:
            pass
    kept.stop()
    shutil.rmtree(folder, ignore_errors=True)
    return {"ended": str(kept.lost) if kept.lost is not None else "its process has ended"}


def _born(pid: int) -> Optional[str]:
    """The start of a process, by which another one of the same number is told apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


VERBS: dict[str, Callable[[Client, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
    "lease": lease,
    "release": release,
    "leases": leases,
    "report": report,
    "explain": explain,
    "keep": keep,
}


async def _do(verb: str, given: dict[str, Any]) -> dict[str, Any]:
    settings = Settings.from_environment(server=given.pop("server", None))
    async with Client(settings=settings) as client:
        return await VERBS[verb](client, given)


def main() -> int:
    """Does what the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        print(f"usage: python -m wharfinger {'|'.join(VERBS)}, with JSON on standard input", file=sys.stderr)
        return 2
    try:
        answer = asyncio.run(_do(sys.argv[1], json.load(sys.stdin)))
    except WharfingerError as error:
        reason = error.reason if isinstance(error, CallError) else None
        answer = {"error": str(error), "kind": type(error).__name__, "reason": reason}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
