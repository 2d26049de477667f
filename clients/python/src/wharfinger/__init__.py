"""A client of a Wharfinger broker: leases that renew themselves, work that ends when its lease breaks, errors by who must act.

    async with wharfinger.Client() as client:
        async with client.lease("copies", branch="main", work="unit@1234") as lease:
            await lease.run("make", "test")

``wharfinger.sync`` has the same for programs without asyncio, ``wharfinger.v1`` the messages of the API.
"""

import os

# gRPC's handlers of forks crash one child in four of a process with calls under way (grpcio 1.85). Without them children live, and
# `ForkError` keeps them from calls that would hang. Read at gRPC's first use; a value that is set stays.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from .client import Client
from .credentials import Credentials, TokenCommand, TokenFile, TokenText
from .errors import (
    AddressError,
    Bug,
    CallError,
    CapacityError,
    CredentialsError,
    ForkError,
    HostError,
    LeaseBroken,
    NotFound,
    RequestError,
    Resync,
    StateError,
    TlsError,
    Unavailable,
    Violation,
    WharfingerError,
)
from .host import Completed, Running
from .keeper import Status
from .lease import Lease
from .settings import Settings
from .v1.types_pb2 import (
    OUTCOME_ABANDONED,
    OUTCOME_FAILED,
    OUTCOME_OK,
    OUTCOME_TAINTED,
)
from .watch import Kind, Watched
from .way import Follow

__all__ = [
    "OUTCOME_ABANDONED",
    "OUTCOME_FAILED",
    "OUTCOME_OK",
    "OUTCOME_TAINTED",
    "AddressError",
    "Bug",
    "CallError",
    "CapacityError",
    "Client",
    "Completed",
    "Credentials",
    "CredentialsError",
    "Follow",
    "ForkError",
    "HostError",
    "Kind",
    "Lease",
    "LeaseBroken",
    "NotFound",
    "RequestError",
    "Resync",
    "Running",
    "Settings",
    "StateError",
    "Status",
    "TlsError",
    "TokenCommand",
    "TokenFile",
    "TokenText",
    "Unavailable",
    "Violation",
    "Watched",
    "WharfingerError",
]
