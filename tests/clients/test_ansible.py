"""The Ansible collection, with a real ansible-core and real sshd."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from farm import ROOT, Broker, Host, until

BIN = Path(sys.executable).parent

LEASES = """
- hosts: localhost
  gather_facts: false
  tasks:
    - wharfinger.wharfinger.wharfinger_lease: {pool: hosts, work: "deploy@1", name: builder, ttl: 60}
      register: leased
    - ansible.builtin.copy: {dest: "{{ out }}/lease", content: "{{ leased.lease | to_json }}"}
"""
WORKS = """
- hosts: builder
  gather_facts: false
  tasks:
    - ansible.builtin.raw: "printf '%s' {{ wharfinger_lease }} >{{ wharfinger_path }}/made"
    - ansible.builtin.command: "cat {{ wharfinger_path }}/made"
      register: made
    - ansible.builtin.assert: {that: "made.stdout == wharfinger_lease"}
"""
RELEASES = """
- hosts: localhost
  gather_facts: false
  tasks:
    - wharfinger.wharfinger.wharfinger_lease: {state: absent, lease: "{{ leased.lease.id }}", outcome: ok}
      register: released
    - wharfinger.wharfinger.wharfinger_lease: {state: absent, lease: "{{ leased.lease.id }}"}
      register: again
    - ansible.builtin.assert: {that: [released.changed, not again.changed]}
    - ansible.builtin.copy: {dest: "{{ out }}/why", content: "{{ lookup('wharfinger.wharfinger.why', leased.lease.id) }}"}
"""
WAITS = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.file: {path: "{{ out }}/between", state: touch}
    - ansible.builtin.wait_for: {path: "{{ out }}/go", timeout: 60, sleep: 1}
"""


class Play:
    """Playbooks in a folder of their own, with the collection."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder = folder
        collections = folder / "collections" / "ansible_collections" / "wharfinger"
        collections.mkdir(parents=True)
        (collections / "wharfinger").symlink_to(ROOT / "integrations" / "ansible")
        self.env = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            "ANSIBLE_CALLBACKS_ENABLED": "wharfinger.wharfinger.unreached",
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_TIMEOUT": "5",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(folder),
            "WHARFINGER_SERVER": broker.address,
        }
        self.env.pop("XDG_RUNTIME_DIR", None)

    def start(self, text: str) -> subprocess.Popen[str]:
        """Starts a playbook."""
        (self.folder / "play.yml").write_text(text)
        command = [BIN / "ansible-playbook", "-i", "localhost,", "-c", "local", "-e", f"out={self.folder}", "play.yml"]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        )

    def run(self, text: str) -> tuple[int, str]:
        """Runs a playbook: its code and its output."""
        process = self.start(text)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def lease(self) -> dict[str, Any]:
        """The lease that the playbook noted."""
        found: dict[str, Any] = json.loads((self.folder / "lease").read_text())
        return found


@pytest.fixture
def play(two_hosts: tuple[Broker, list[Host]], tmp_path: Path) -> Play:
    """Playbooks for the broker of the test."""
    return Play(tmp_path, two_hosts[0])


def test_a_playbook_leases_works_and_releases(play: Play, two_hosts: tuple[Broker, list[Host]]) -> None:
    broker, _ = two_hosts
    code, output = play.run(LEASES + WORKS + RELEASES)
    assert code == 0, output
    found = broker.get(play.lease()["id"])
    assert (found["state"], found["outcome"], found["work"]) == ("RELEASED", "OK", "deploy@1"), found
    assert "released" in (play.folder / "why").read_text().lower()
    # Keys of the host are gone with the lease.
    assert not list(play.folder.glob(f"wharfinger-ansible-*/{found['id']}")), output
    code, output = play.run(LEASES.replace("pool: hosts", "pool: nowhere"))
    assert code == 2 and 'no pool \\"nowhere\\"' in output.replace('"nowhere"', '\\"nowhere\\"'), output


def test_a_host_that_dies_between_two_plays_is_reported_and_the_lease_breaks(
    play: Play, two_hosts: tuple[Broker, list[Host]]
) -> None:
    broker, hosts = two_hosts
    process = play.start(LEASES + WAITS + WORKS)
    until((play.folder / "between").exists, "the end of the first play", 60)
    lease = play.lease()["id"]
    victim = next(host for host in hosts if str(host.port) == str(broker.get(lease)["access"]["port"]))
    victim.kill()
    (play.folder / "go").touch()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 4 and "UNREACHABLE" in output, output
    # Reported, or the broker was first: it has probes of its own.
    assert re.search(rf"wharfinger: lease {lease} is reported|wharfinger report: .*{lease}", output), output
    until(lambda: broker.get(lease)["state"] == "BROKEN", "the break")


def test_the_inventory_has_my_active_leases_and_the_lease_ends_with_its_playbook(
    play: Play, two_hosts: tuple[Broker, list[Host]]
) -> None:
    broker, _ = two_hosts
    process = play.start(LEASES.replace("ttl: 60", "ttl: 15") + WAITS)
    until((play.folder / "between").exists, "the end of the first play", 60)
    lease = play.lease()["id"]
    first = broker.get(lease)["expires_at"]
    (play.folder / "my.wharfinger.yml").write_text("plugin: wharfinger.wharfinger.leases\npools: [hosts]\n")
    ping = [BIN / "ansible", "-i", "my.wharfinger.yml", "leased", "-m", "ansible.builtin.raw", "-a", "echo it-is $PPID"]
    done = subprocess.run(ping, cwd=play.folder, env=play.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "it-is" in done.stdout and lease in done.stdout, done.stdout + done.stderr
    docs = subprocess.run(
        [BIN / "ansible-doc", "wharfinger.wharfinger.wharfinger_lease"], cwd=play.folder, env=play.env, capture_output=True, text=True, timeout=120
    )
    assert docs.returncode == 0 and "lease renews itself while the playbook runs" in " ".join(docs.stdout.split()), docs.stderr
    # It is renewed while the playbook goes on. The playbook is killed: no process renews it.
    until(lambda: broker.get(lease)["expires_at"] != first, "a renewal")
    assert broker.get(lease)["state"] == "ACTIVE"
    process.kill()
    process.communicate()
    until(lambda: broker.get(lease)["state"] == "EXPIRED", "the end of the TTL")
    until(lambda: not list(play.folder.glob(f"wharfinger-ansible-*/{lease}")), "the end of the files")


def test_the_collection_can_be_built(tmp_path: Path) -> None:
    command = [BIN / "ansible-galaxy", "collection", "build", "--output-path", str(tmp_path)]
    env = {**os.environ, "ANSIBLE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=ROOT / "integrations" / "ansible", env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and list(tmp_path.glob("wharfinger-wharfinger-*.tar.gz")), done.stderr
