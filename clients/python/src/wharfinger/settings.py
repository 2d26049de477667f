"""The settings of a client, and where the environment has them: the variables are those of the command line."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional

from .credentials import Credentials, from_environment
from .errors import AddressError, TlsError
from .way import Follow

DEFAULT_SERVER = "http://127.0.0.1:7411"


@dataclass(frozen=True)
class Settings:
    """Settings of a client. Times are in seconds."""

    server: str = DEFAULT_SERVER
    """``HOST:PORT``, ``https://HOST:PORT`` or ``unix:///PATH``; several servers with commas between."""
    follow: Follow = Follow.LISTED
    """The servers to which a refusal may lead that names the leader."""
    credentials: Optional[Credentials] = field(default=None, repr=False)
    """Source of the caller's token. It is sent to servers with TLS, and to servers on this machine."""
    ca_file: Optional[Path] = None
    """Authorities that sign servers' certificates, in PEM. ``None``: those that this machine trusts."""
    certificate: Optional[Path] = None
    """The caller's certificate, in PEM. Together with ``certificate_key``."""
    certificate_key: Optional[Path] = None
    """Private key of the certificate, in PEM."""
    holder: str = ""
    """Holder of leases that name none."""
    connect_timeout: float = 5.0
    """Maximum time to connect. With several servers at most 2."""
    call_timeout: float = 20.0
    """Maximum time of one try of a call, beyond the wait that it asks for. With several servers at most 3."""
    retry_for: float = 30.0
    """Maximum time of all tries of a call while the broker is unavailable, beyond the wait that it asks for. 0: one try."""
    release_for: float = 10.0
    """Maximum time of the tries of a release at the end of a lease. Then the lease ends by its TTL."""
    check_for: float = 30.0
    """Maximum time for which a lease is kept after failed work, until the broker has checked the resource. 0: not at all."""

    @classmethod
    def from_environment(cls, environ: Optional[Mapping[str, str]] = None, **given: Any) -> "Settings":
        """Returns the settings that the environment has; those that are given go first. ``None`` counts as not given.

        Raises ``AddressError``, ``TlsError`` or ``CredentialsError`` for a variable that makes no sense.
        """
        env = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
        found: dict[str, Any] = {}
        for name, variable in (("server", "WHARFINGER_SERVER"), ("holder", "WHARFINGER_HOLDER")):
            if variable in env:
                found[name] = env[variable]
        for name, variable in (
            ("ca_file", "WHARFINGER_CA_FILE"),
            ("certificate", "WHARFINGER_CERTIFICATE"),
            ("certificate_key", "WHARFINGER_CERTIFICATE_KEY"),
        ):
            if variable in env:
                found[name] = Path(env[variable])
        if "WHARFINGER_FOLLOW_LEADER" in env:
            try:
                found["follow"] = Follow(env["WHARFINGER_FOLLOW_LEADER"])
            except ValueError:
                choices = ", ".join(follow.value for follow in Follow)
                raise AddressError(f"WHARFINGER_FOLLOW_LEADER is none of {choices}") from None
        if "WHARFINGER_SERVER_URI" in env:
            raise TlsError(
                "WHARFINGER_SERVER_URI is set, and gRPC for Python cannot compare the URI of a server's certificate: unset it, and "
                "give the servers certificates with their host names"
            )
        found.update((name, value) for name, value in given.items() if value is not None)
        if "credentials" not in found:
            found["credentials"] = from_environment(env, found.get("server", DEFAULT_SERVER))
        settings = cls(**found)
        if (settings.certificate is None) != (settings.certificate_key is None):
            raise TlsError(
                "a certificate needs its private key, and a key its certificate: set WHARFINGER_CERTIFICATE and "
                "WHARFINGER_CERTIFICATE_KEY"
            )
        return settings

    def tls_files(self) -> tuple[Optional[bytes], Optional[bytes], Optional[bytes]]:
        """Reads authorities, private key and certificate. Raises ``TlsError``."""
        ca = self.ca_file
        if ca is None:
            machine = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
            ca = Path(machine) if os.path.exists(machine) else None
        return _pem(ca), _pem(self.certificate_key), _pem(self.certificate)


def _pem(path: Optional[Path]) -> Optional[bytes]:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        raise TlsError(f"{path} holds no PEM")
    return data
