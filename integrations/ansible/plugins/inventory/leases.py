"""The active leases of the caller as hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: leases
short_description: The caller's active leases of a Wharfinger broker as hosts
description:
  - Each active lease is a host, named by the id of the lease, in group C(leased) and in a group for its pool.
  - The server, certificates and the token are those of the environment, as for the command line.
  - The file is named C(*.wharfinger.yml).
options:
  plugin:
    description: Name of this plugin.
    required: true
    choices: [wharfinger.wharfinger.leases]
  server:
    description: Address of the broker. E(WHARFINGER_SERVER) if absent.
    type: str
  pools:
    description: Only leases of these pools.
    type: list
    elements: str
    default: []
  holders:
    description: Only leases of these holders.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
plugin: wharfinger.wharfinger.leases
pools: [hosts]
"""

from ansible.plugins.inventory import BaseInventoryPlugin, to_safe_group_name  # noqa: E402
from ansible_collections.wharfinger.wharfinger.plugins.plugin_utils.broker import call  # noqa: E402


class InventoryModule(BaseInventoryPlugin):
    """Reads the leases at each start of a playbook."""

    NAME = "wharfinger.wharfinger.leases"

    def verify_file(self, path):
        """Whether the file is one of this plugin."""
        return super().verify_file(path) and path.endswith((".wharfinger.yml", ".wharfinger.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Adds the hosts."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        answer = call(
            "leases", server=self.get_option("server"), pools=self.get_option("pools"), holders=self.get_option("holders")
        )
        inventory.add_group("leased")
        for lease in answer["leases"]:
            inventory.add_host(lease["id"], "leased")
            pool = inventory.add_group(to_safe_group_name(f"pool_{lease['pool']}"))
            inventory.add_child(pool, lease["id"])
            for name, value in lease["host_vars"].items():
                inventory.set_variable(lease["id"], name, value)
