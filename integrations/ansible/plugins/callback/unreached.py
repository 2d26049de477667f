"""Reports leased hosts that a playbook cannot reach: the broker decides whether the host is at fault."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unreached
type: notification
short_description: Reports unreachable leased hosts to their Wharfinger broker
description:
  - A host with the variable C(wharfinger_lease) that is UNREACHABLE is reported. The broker logs in by itself, and breaks the lease
    if the host is gone.
  - Enable it by C(callbacks_enabled = wharfinger.wharfinger.unreached).
"""

from ansible.plugins.callback import CallbackBase  # noqa: E402
from ansible_collections.wharfinger.wharfinger.plugins.plugin_utils.broker import BrokerError, call  # noqa: E402


class CallbackModule(CallbackBase):
    """Listens for unreachable hosts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "wharfinger.wharfinger.unreached"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_unreachable(self, result):
        """Reports the host of a lease."""
        host = getattr(result, "host", None) or result._host
        lease = host.vars.get("wharfinger_lease")
        # The module itself calls a resource unreachable that the broker has found unfit.
        if not lease or "lease" in (getattr(result, "result", None) or result._result):
            return
        try:
            answer = call("report", lease=lease, unreached=True, note="UNREACHABLE from a playbook")
            self._display.display(f"wharfinger: lease {lease} is reported; {answer['doubt'] or 'nothing speaks against its host'}")
        except BrokerError as error:
            self._display.warning(str(error))
