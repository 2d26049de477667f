"""Calls of the broker. Each is a process of its own: Ansible forks, and a connection does not outlive a fork."""

from __future__ import annotations

import json
import subprocess
import sys

from ansible.errors import AnsibleError


class BrokerError(AnsibleError):
    """The broker refused, or was not reached."""

    def __init__(self, message, answer=None):
        super().__init__(message)
        self.answer = answer or {}


def call(verb, **given):
    """Does a verb of ``python -m wharfinger``, and returns its answer."""
    given = {name: value for name, value in given.items() if value is not None}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wharfinger", verb], input=json.dumps(given), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BrokerError(f"wharfinger {verb}: {error}") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        text = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        remedy = f"install the package wharfinger for {sys.executable}"
        raise BrokerError(f"wharfinger {verb}: {text[0]} ({remedy})") from None
    if "error" in answer:
        raise BrokerError(f"wharfinger {verb}: {answer['error']}", answer)
    return answer
