"""Ansible: a real ansible-core with the collection of integrations/ansible."""

from __future__ import annotations

import os
import signal

from products.clients import client_programs
from products.process import ProcessJob, plain_status
from farm import ROOT, Farm
from snippets import snippet


class PlaybookJob(ProcessJob):
    """The loop around a playbook."""

    def cancel(self) -> None:
        """Control-C: its process group has the signal."""
        os.killpg(self.process.pid, signal.SIGINT)


class Ansible:
    """The playbook and the loop, as the page says."""

    name = "Ansible"
    slowest = 60.0

    def start(self, farm: Farm) -> PlaybookJob:
        """Runs the playbook."""
        collections = farm.folder / "collections/ansible_collections/wharfinger"
        collections.mkdir(parents=True)
        (collections / "wharfinger").symlink_to(ROOT / "integrations/ansible")
        (farm.folder / "site.yml").write_text(snippet("ansible.md", "playbook", {"make test": farm.command()}))
        script = snippet("ansible.md", "run", {"https://wharfinger.example.org:7411": farm.server})
        env = farm.env(
            ANSIBLE_COLLECTIONS_PATH=str(farm.folder / "collections"), ANSIBLE_NOCOLOR="1", ANSIBLE_TIMEOUT="5", GRPC_VERBOSITY="ERROR", WORK="unit@1",
            PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip
        env["PATH"] = f"{client_programs()}:{env['PATH']}"
        return PlaybookJob(["sh", "-ec", script], env, farm.folder / "job.log", farm.folder, signal.SIGINT, plain_status)
