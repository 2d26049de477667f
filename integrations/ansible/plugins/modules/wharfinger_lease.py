# Documentation alone: the action plugin of the same name does the work, on the controller.
from __future__ import annotations

DOCUMENTATION = r"""
module: wharfinger_lease
short_description: Leases a host or a working copy of a Wharfinger broker, or ends a lease
description:
  - Runs on the controller. It leases, waits until the lease is active, and adds its host to the inventory of the play.
  - The lease renews itself while the playbook runs, and ends with its TTL afterwards, unless it is released.
  - The server, certificates and the token are those of the environment, as for the command line.
options:
  state:
    description: V(present) leases; V(absent) releases O(lease).
    type: str
    choices: [present, absent]
    default: present
  server:
    description: Address of the broker. E(WHARFINGER_SERVER) if absent.
    type: str
  pool:
    description: Pool to lease from.
    type: str
  labels:
    description: Labels of the resource; all must match.
    type: dict
  branch:
    description: Branch that a working copy has.
    type: str
  commit:
    description: Commit that a working copy has.
    type: str
  work:
    description: Name of the work, the same each time that it is tried.
    type: str
  holder:
    description: Holder in your own words.
    type: str
  ttl:
    description: Seconds from a renewal to the end.
    type: float
  wait:
    description: Maximum seconds in the queue.
    type: float
  expected:
    description: Likely length of the work in seconds.
    type: float
  name:
    description: Name of the host in the inventory. The id of the lease if absent.
    type: str
  groups:
    description: Groups of the host.
    type: list
    elements: str
    default: [leased]
  lease:
    description: Id of the lease that V(absent) ends.
    type: str
  outcome:
    description:
      - How the work went. V(abandoned) counts nothing.
      - V(failed) has the resource checked first. If it is unfit, the host of the task is UNREACHABLE, so that the playbook ends with 4.
    type: str
    choices: [ok, failed, tainted, abandoned]
    default: abandoned
  note:
    description: Note for the audit trail.
    type: str
  hold:
    description: Seconds for which the resource is kept as the work left it.
    type: float
author: Wharfinger maintainers
"""

EXAMPLES = r"""
- hosts: localhost
  gather_facts: false
  tasks:
    - wharfinger.wharfinger.wharfinger_lease:
        pool: hosts
        labels: {os: linux}
        name: builder
      register: leased

- hosts: leased
  tasks:
    - ansible.builtin.command: make test

- hosts: localhost
  gather_facts: false
  tasks:
    - wharfinger.wharfinger.wharfinger_lease:
        state: absent
        lease: "{{ leased.lease.id }}"
        outcome: ok
"""

RETURN = r"""
lease:
  description:
    - The lease, with its id, pool, resource, path, commit and fencing token.
    - With V(absent) its id, state, resource, C(fault) (NONE, WORK, RESOURCE, UNDECIDED, OPEN) and C(why).
  type: dict
  returned: always
"""
