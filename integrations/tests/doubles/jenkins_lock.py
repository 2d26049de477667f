"""A double of the step `lock` of a Jenkins pipeline with `serverId`: acquires by the remote API, runs one script, and releases.

From RemoteApiClient.java, RemoteLockSession.java and remote-api-curl.md of the plugin lockable-resources (1560.va_b_cd589f23eb_):

* POST acquire/ gives the id of a lock (202); its state is polled. QUEUED waits; ACQUIRED runs the body with `lockEnvVars`; SKIPPED ends the step without
  it; FAILED, EXPIRED and CANCELLED fail it.
* A poll that has 404 or 410 fails the step as LOCK_WAIT_TIMEOUT; another failure is tried again, at most 5 times in a row.
* A heartbeat that fails is logged, and the body goes on. The release follows the body, whatever its end, and its failure is logged.
* The credentials of the connection are a user name and a password, sent as Basic.

The times between polls and heartbeats are shorter here.

As a program it is a build with the loop of docs/adopt/jenkins.md. Argument: a JSON file with `url`, `password`, `request`, `script`, `attempts`, `again` (the
code that begins again) and `folder` (the agent's). The body is a step `sh` with `returnStatus`. SIGTERM is the user's button: it aborts the step, and the lock is
released. The last line of its output is the status in words.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
POLL = 0.2
HEARTBEAT = 0.5
MOST_FAILURES = 5
LONGEST = 60.0
BASE = "/lockable-resources/remote/v1"


class RemoteApiError(Exception):
    """A call that the server refused, or that did not reach it (status -1)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"HTTP {status}, errorCode={code}, message={message}")
        self.status, self.code = status, code


class AbortError(Exception):
    """The step has failed without its body."""


@dataclass
class Connection:
    """A connection of the controller: the server's address, and the credentials."""

    url: str
    user: str
    password: str

    def call(self, method: str, path: str, document: object = None) -> tuple[int, dict[str, Any]]:
        """Calls a path. Returns the status and the document."""
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Accept": "application/json", "Authorization": f"Basic {pair}"}
        body = None
        if document is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(document).encode()
        elif method == "POST":
            body = b""
        request = urllib.request.Request(self.url.rstrip("/") + BASE + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            found = json.loads(error.read() or b"{}")
            raise RemoteApiError(error.code, found.get("errorCode", ""), found.get("message", "")) from None
        except OSError as error:
            raise RemoteApiError(-1, "", str(error)) from None


@dataclass
class Lock:
    """One step `lock`. `request` has the fields of `lockRequest`."""

    connection: Connection
    request: dict[str, Any]
    lock: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    heartbeats: int = 0

    def enqueue(self) -> None:
        """Asks for the lock."""
        document = {"lockRequest": self.request, "heartbeatIntervalSeconds": 10, "clientId": "https://ci.example.org/"}
        status, found = self.connection.call("POST", "/acquire/", document)
        assert status == 202, status
        self.lock = found["lockId"]

    def state(self) -> str:
        """The state of the lock."""
        _, found = self.connection.call("GET", f"/acquire/{urllib.parse.quote(self.lock)}/")
        self.variables = found.get("lockEnvVars", {})
        self.log.append(f"{found['state']} {found.get('errorCode', '')} {found.get('message', '')}".strip())
        return str(found["state"])

    def acquire(self) -> bool:
        """Polls until the lock is held. False: the step is skipped. Raises AbortError."""
        failures, end = 0, time.monotonic() + LONGEST
        while time.monotonic() < end:
            try:
                state, failures = self.state(), 0
            except RemoteApiError as error:
                if error.status in (404, 410):
                    raise AbortError("state=FAILED, errorCode=LOCK_WAIT_TIMEOUT") from error
                failures += 1
                if failures >= MOST_FAILURES:
                    raise AbortError(str(error)) from error
                state = "QUEUED"
            if state == "ACQUIRED":
                return True
            if state == "SKIPPED":
                return False
            if state != "QUEUED":
                raise AbortError(self.log[-1])
            time.sleep(POLL)
        raise TimeoutError("the lock is not held")

    def run(self, script: str, env: dict[str, str]) -> int:
        """Runs the body, `sh SCRIPT`, with heartbeats, and releases. Returns its code."""
        body = subprocess.Popen(["sh", "-xe", "-c", script], env=env | self.variables, stdin=subprocess.DEVNULL)
        try:
            return self.hold(lambda: body.wait(LONGEST))
        finally:
            if body.poll() is None:
                body.kill()
                body.wait()

    def hold(self, body: Callable[[], T]) -> T:
        """Calls the body with heartbeats, and releases."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT):
                try:
                    self.connection.call("POST", f"/lease/{self.lock}/heartbeat")
                    self.heartbeats += 1
                except RemoteApiError as error:
                    self.log.append(f"Remote heartbeat failed (continuing job; server retains lock): {error}")

        beats = threading.Thread(target=beat, daemon=True)
        beats.start()
        try:
            return body()
        finally:
            stop.set()
            beats.join()
            self.release()

    def release(self) -> None:
        """Releases the lock."""
        try:
            status, _ = self.connection.call("POST", f"/lease/{self.lock}/release")
            assert status == 204, status
        except RemoteApiError as error:
            self.log.append(f"release failed: {error}")


def build(document: dict[str, Any]) -> str:
    """Runs the build of the page. Returns its status in words."""
    from jenkins_sh import Step, status

    connection = Connection(document["url"], "jenkins", document["password"])
    for attempt in range(document["attempts"]):
        folder = Path(document["folder"]) / str(attempt)
        folder.mkdir(parents=True)
        (folder / "script").write_text(document["script"])
        lock = Lock(connection, document["request"])
        lock.enqueue()
        try:
            if not lock.acquire():
                return "SUCCESS"
        except AbortError as error:
            return f"FAILURE ({error})"
        step = Step(folder, lock.variables)
        code = lock.hold(step.run)
        print("\n".join(lock.log), flush=True)
        if step.aborted or code != document["again"]:
            break
    return status(step, code)


if __name__ == "__main__":
    print(build(json.loads(Path(sys.argv[1]).read_text())), flush=True)
