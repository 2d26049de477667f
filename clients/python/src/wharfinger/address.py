"""Addresses of servers."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Optional

from .errors import AddressError

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class ServerAddress:
    """The address of one server."""

    authority: str
    """The canonical form: ``HOST:PORT``, or ``unix:///PATH``."""
    host: Optional[str]
    """The host. ``None``: the address is a Unix socket."""
    secure: bool
    """Whether it has TLS."""

    @property
    def is_socket(self) -> bool:
        """Whether the address is a Unix socket of this machine."""
        return self.host is None

    @property
    def is_private(self) -> bool:
        """Whether nothing between reads along: there is TLS, or nothing between."""
        return self.secure or self.is_socket

    @property
    def is_here(self) -> bool:
        """Whether the address is of this machine, whatever name servers say."""
        try:
            address = ipaddress.ip_address((self.host or "").strip("[]"))
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return bool((mapped or address).is_loopback)

    @property
    def target(self) -> str:
        """The name by which gRPC connects."""
        return self.authority if self.is_socket else f"dns:///{self.authority}"


def parse_address(text: str) -> ServerAddress:
    """Reads ``HOST:PORT``, ``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:///PATH``. Raises ``AddressError``."""
    text = text.strip()
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    if scheme == "unix" and rest.startswith("/") and not rest.endswith("/"):
        return ServerAddress(f"unix://{rest}", None, False)
    match = _AUTHORITY.fullmatch(rest.removesuffix("/"))
    if scheme not in ("http", "https") or match is None or int(match["port"]) > 65535:
        raise AddressError(
            f"{text!r} is no address of a broker: write HOST:PORT or https://HOST:PORT, several with commas between"
        )
    return ServerAddress(f"{match['host']}:{int(match['port'])}", match["host"], scheme == "https")


def parse_addresses(text: str) -> list[ServerAddress]:
    """Reads addresses with commas between. Raises ``AddressError``."""
    return [parse_address(part) for part in text.split(",")]
