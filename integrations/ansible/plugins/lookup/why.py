"""Why a lease waits, or how it ended."""

from __future__ import annotations

DOCUMENTATION = r"""
name: why
short_description: Explains a lease of a Wharfinger broker in a sentence
options:
  _terms:
    description: Ids of leases.
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "{{ lookup('wharfinger.wharfinger.why', leased.lease.id) }}"
"""

RETURN = r"""
_raw:
  description: A sentence for each lease.
  type: list
"""

from ansible.plugins.lookup import LookupBase  # noqa: E402
from ansible_collections.wharfinger.wharfinger.plugins.plugin_utils.broker import call  # noqa: E402


class LookupModule(LookupBase):
    """Asks the broker."""

    def run(self, terms, variables=None, **kwargs):
        """Returns the sentences."""
        self.set_options(var_options=variables, direct=kwargs)
        return [call("explain", lease=term)["summary"] for term in terms]
