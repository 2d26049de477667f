"""Why a call failed, by who must act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, Optional, Sequence, Tuple, Union

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from wharfinger.v1 import types_pb2

__all__ = [
    "AddressError",
    "Bug",
    "CapacityError",
    "CredentialsError",
    "ForkError",
    "HostError",
    "LeaseBroken",
    "NotFound",
    "RequestError",
    "Resync",
    "StateError",
    "TlsError",
    "Unavailable",
    "Violation",
    "WharfingerError",
]


class WharfingerError(Exception):
    """Base of all errors of this package."""


class AddressError(WharfingerError):
    """The address of a broker makes no sense. The caller must act."""


class TlsError(WharfingerError):
    """A certificate, key or list of the client cannot be used. The caller must act."""


class CredentialsError(WharfingerError):
    """There is no token to send. The caller must act. The text holds no token."""


class ForkError(WharfingerError):
    """The client was made before this process was forked, and gRPC's threads are in the parent. The caller must act."""


class HostError(WharfingerError):
    """The leased host cannot be reached from here, or not with the given key."""


@dataclass(frozen=True)
class Violation:
    """One field of a request, and what is wrong with it."""

    field: str
    """Path of the field in the request's message."""
    description: str
    """The mistake, and what would be right."""


class CallError(WharfingerError):
    """A call that the broker refused, or that did not reach it."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        violations: Sequence[Violation] = (),
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """Status code."""
        self.message = message
        """The broker's message."""
        self.reason = reason
        """The broker's stable reason, such as ``UNKNOWN_POOL``. ``None``: the status is not the broker's own."""
        self.metadata = dict(metadata or {})
        """Values of the reason, such as ``oldest_revision``."""
        self.violations = tuple(violations)
        """The fields at fault."""
        self.retry_after = retry_after
        """Seconds after which another try is worth it."""

    @property
    def is_unauthenticated(self) -> bool:
        """Whether the server refused the caller's token, or had none: a fresh one may do."""
        return self.code is grpc.StatusCode.UNAUTHENTICATED


class RequestError(CallError):
    """The request is wrong, now and always. The caller must act; ``violations`` says where."""


class NotFound(CallError):
    """There is no such lease, resource or pool, or no longer. The caller must act."""


class StateError(CallError):
    """It is not the caller's, or not in a state for it: the lease has ended, the request id was used before."""


class CapacityError(CallError):
    """No capacity now, or a limit was reached. Come back after ``retry_after``, or queue."""


class Resync(CallError):
    """A watch wants to resume from a revision that the broker no longer has: start from the current state."""


class Unavailable(CallError):
    """The broker cannot be reached or cannot answer now. The operator must act if it stays so.

    What was asked may have been done, so repeat it as it is.
    """

    def __str__(self) -> str:
        return f"the broker can't be reached or does not answer now: {self.message}"


class Bug(CallError):
    """A mistake of the broker or of this client. Report it."""

    def __str__(self) -> str:
        return f"the broker failed: {self.message}"


_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: StateError,
    grpc.StatusCode.PERMISSION_DENIED: StateError,
    grpc.StatusCode.UNAUTHENTICATED: StateError,
    grpc.StatusCode.FAILED_PRECONDITION: StateError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: CapacityError,
    grpc.StatusCode.OUT_OF_RANGE: Resync,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.ABORTED: Unavailable,
}
"""Who acts, by the status code. All others are bugs."""

DETAILS = "grpc-status-details-bin"


def error_of(
    code: grpc.StatusCode,
    message: str,
    trailing: Optional[Sequence[Tuple[str, Union[str, bytes]]]] = None,
    *,
    sent: bool = True,
) -> CallError:
    """Returns the error for a status and its trailing metadata. ``sent``: a server sent the status, no broken connection."""
    reason: Optional[str] = None
    metadata: Mapping[str, str] = {}
    violations: list[Violation] = []
    retry_after: Optional[float] = None
    for details in (value for key, value in trailing or () if key == DETAILS and isinstance(value, bytes)):
        for detail in status_pb2.Status.FromString(details).details:
            info = error_details_pb2.ErrorInfo()
            fields = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(fields):
                violations += [Violation(v.field, v.description) for v in fields.field_violations]
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    lost = code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL) and not sent
    kind = Unavailable if lost else _CODES.get(code, Bug)
    return kind(
        code, message, reason=reason, metadata=metadata, violations=violations, retry_after=retry_after
    )


class LeaseBroken(WharfingerError):
    """The lease was lost under its holder, who must stop: run the work again elsewhere, unless ``retry`` is false."""

    def __init__(self, lease: "types_pb2.Lease", why: str, text: str, resource_id: str = "") -> None:
        super().__init__(text)
        self.lease = lease
        """Last known state of the lease."""
        self.resource_id = resource_id or lease.resource_id
        """Resource that the lease was on."""
        self.why = why
        """``ended``: the broker ended it. ``forgotten``: the broker no longer knows it. ``no_contact``: no renewal succeeded
        for a whole TTL, and the broker may have given the slot away."""

    @property
    def causes(self) -> "Sequence[types_pb2.Cause]":
        """Why it broke, nearest cause first, root cause last."""
        return self.lease.causes

    @property
    def fault(self) -> str:
        """``WORK`` if the root of the break is the work itself, else ``RESOURCE``."""
        return "WORK" if self.causes and self.causes[-1].reason == "WORK_BLAMED" else "RESOURCE"

    @property
    def retry(self) -> bool:
        """Whether the work is worth another try elsewhere."""
        return self.fault != "WORK"
