"""The choice among several servers.

Calls go to the server that answered the last one. A server that follows and does not forward refuses with the leader's address, and
the same call goes there at once if the client may follow it: a refused call did nothing. A call whose connection was never
established is retried as well. A later failure is returned, and the next call goes to the next server.

The rules are those of the Rust client; ``tests/clients/way.json`` has them as a table that both pass.
"""

from __future__ import annotations

from enum import Enum
from typing import Optional, Sequence

from .address import ServerAddress, parse_address
from .errors import AddressError, CallError, Unavailable

MOST = 32
"""Maximum number of servers, configured or named by other servers."""


class Follow(Enum):
    """The servers to which a refusal may lead that names the leader. A stranger that answers as a server could name any."""

    LISTED = "listed"
    """Those of the client's list."""
    SAME_HOSTS = "same-hosts"
    """Those on the hosts of the list, on any port."""
    ANYWHERE = "anywhere"
    """All. For closed networks."""


class Way:
    """The known servers, and which of them is the present one. One for calls, and one for watches."""

    def __init__(self, servers: Sequence[ServerAddress], follow: Follow, first: int = 0) -> None:
        self.servers = list(servers)
        self._follow = follow
        self._hosts = {server.host for server in servers if server.host is not None}
        self.at = first % len(self.servers)

    def go_on(self, since: int) -> None:
        """Goes on to the next server, unless another call did so already."""
        if self.at == since:
            self.at = (since + 1) % len(self.servers)

    def judge(self, error: CallError, at: int, dead: Sequence[int]) -> bool:
        """Returns whether the call did nothing and goes to another server, which is then the present one."""
        if not isinstance(error, Unavailable):
            return False
        refusal = error.reason == "NOT_LEADER"
        leader = error.metadata.get("leader") if refusal else None
        if leader is not None and self._go_to(leader, dead):
            return True
        self.go_on(at)
        return refusal

    def _go_to(self, leader: str, dead: Sequence[int]) -> bool:
        """Goes to the server that leads, and adds it if it may be followed. One of ``dead`` is refused."""
        try:
            told = parse_address(leader)
        except AddressError:
            return False
        known: Optional[int] = next(
            (at for at, server in enumerate(self.servers) if server.authority == told.authority), None
        )
        if known is not None:
            if known in dead:
                return False
            self.at = known
            return True
        # A server names no file of this machine, and leads from no server with TLS to one without.
        exposed = not told.is_private and any(server.is_private for server in self.servers)
        if told.is_socket or exposed or not self._may_follow(told) or len(self.servers) >= MOST:
            return False
        self.servers.append(told)
        self.at = len(self.servers) - 1
        return True

    def _may_follow(self, told: ServerAddress) -> bool:
        if self._follow is Follow.LISTED:
            return False
        return self._follow is Follow.ANYWHERE or told.host in self._hosts
