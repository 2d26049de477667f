"""Leases, and adds the host of the lease to the play; or releases."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.wharfinger.wharfinger.plugins.plugin_utils.broker import BrokerError, call

WANTED = {
    "pool": "str",
    "labels": "dict",
    "branch": "str",
    "commit": "str",
    "work": "str",
    "holder": "str",
    "ttl": "float",
    "wait": "float",
    "expected": "float",
}


class ActionModule(ActionBase):
    """Runs on the controller, once for all hosts of the play."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Does the task."""
        result = super().run(tmp, task_vars)
        spec = {name: {"type": kind} for name, kind in WANTED.items()}
        spec.update(
            state={"choices": ["present", "absent"], "default": "present"},
            server={"type": "str"},
            name={"type": "str"},
            groups={"type": "list", "elements": "str", "default": ["leased"]},
            lease={"type": "str"},
            outcome={"choices": ["ok", "failed", "tainted", "abandoned"], "default": "abandoned"},
            note={"type": "str"},
            hold={"type": "float"},
        )
        _, given = self.validate_argument_spec(spec)
        try:
            if given["state"] == "absent":
                if not given["lease"]:
                    raise AnsibleActionFail("state: absent needs the id of the lease, in `lease`")
                sent = {name: given[name] for name in ("server", "lease", "outcome", "note", "hold")}
                answer = call("release", **sent)
                result.update(changed=answer.pop("changed"), lease=answer)
                if given["outcome"] == "failed" and answer.get("fault") == "RESOURCE":
                    # As a host that does not answer: what Ansible's callers run again.
                    why = answer["why"] or answer["state"]
                    result.update(unreachable=True, msg=f"resource {answer['resource']} of lease {answer['id']} is unfit: {why}")
                return result
            if not (given["pool"] or given["labels"]):
                raise AnsibleActionFail("give a pool, labels, or both")
            if self._task.check_mode:
                result.update(changed=True, skipped=True, msg="nothing is leased in check mode")
                return result
            # The playbook: tasks run in processes that it forks.
            wanted = {name: given[name] for name in ("server", *WANTED)}
            answer = call("lease", while_pid=os.getppid(), **wanted)
        except BrokerError as error:
            result.update(failed=True, msg=str(error), reason=error.answer.get("reason"), kind=error.answer.get("kind"))
            return result
        variables = answer.pop("host_vars", {})
        result.update(changed=True, lease=answer)
        result["add_host"] = {"host_name": given["name"] or answer["id"], "groups": given["groups"], "host_vars": variables}
        return result
