"""Servers that answer as a test says, in a process of their own: what a real broker does only now and then.

Usage: scripted.py, with a JSON list of servers on standard input. Prints their ports as a JSON list, and serves until standard input
ends. A server is ``{"does": …}``:

* ``leads``: answers. Leases are ACTIVE at once. A lease whose tag ``after`` is N breaks N seconds after its request.
* ``follows``: refuses with NOT_LEADER, and names ``leader``: the index of another one, a text, or nothing.
* ``stops``: refuses with UNAVAILABLE and STOPPING.
* ``is dead``: nothing listens on its port.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, AsyncIterator

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from wharfinger.v1 import lease_pb2, types_pb2


class Leader:
    """A server that leads. Its own index is the ``revision`` of what it reads."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.leases: dict[str, types_pb2.Lease] = {}
        self.renewals = 0
        self.changed = asyncio.Event()

    def at(self, seconds: float) -> Any:
        found = types_pb2.Lease().created_at
        found.FromNanoseconds(int(seconds * 1e9))
        return found

    async def Lease(self, request: lease_pb2.LeaseRequest) -> lease_pb2.LeaseResponse:
        id = f"lse_{len(self.leases)}"
        lease = types_pb2.Lease(id=id, revision=1, state=types_pb2.LEASE_STATE_ACTIVE, tags=request.tags, resource_id="res_1")
        lease.ttl.CopyFrom(request.ttl)
        for field in ("created_at", "active_at"):
            getattr(lease, field).CopyFrom(self.at(time.time()))
        lease.expires_at.CopyFrom(self.at(time.time() + request.ttl.seconds))
        self.leases[id] = lease
        if "after" in request.tags:
            asyncio.get_running_loop().call_later(float(request.tags["after"]), self.end, id, types_pb2.LEASE_STATE_BROKEN)
        return lease_pb2.LeaseResponse(lease=lease)

    def end(self, id: str, state: types_pb2.LeaseState) -> None:
        lease = self.leases[id]
        if not lease.HasField("ended_at"):
            lease.state, lease.revision = state, lease.revision + 1
            lease.ended_at.CopyFrom(self.at(time.time()))
            if state == types_pb2.LEASE_STATE_BROKEN:
                lease.causes.add(subject="res_1", reason="RESOURCE_GONE", detail=f"at {time.time()}")
            changed, self.changed = self.changed, asyncio.Event()
            changed.set()

    async def Renew(self, request: lease_pb2.RenewRequest) -> lease_pb2.RenewResponse:
        self.renewals += 1
        lease = self.leases[request.lease_id]
        lease.revision += 1
        lease.tags["renewals"] = str(int(lease.tags["renewals"] or "0") + 1)
        return lease_pb2.RenewResponse(lease=lease)

    async def Release(self, request: lease_pb2.ReleaseRequest) -> lease_pb2.ReleaseResponse:
        self.end(request.lease_id, types_pb2.LEASE_STATE_RELEASED)
        return lease_pb2.ReleaseResponse(lease=self.leases[request.lease_id])

    async def Report(self, request: lease_pb2.ReportRequest) -> lease_pb2.ReportResponse:
        return lease_pb2.ReportResponse(lease=self.leases[request.lease_id])

    async def Get(self, request: lease_pb2.GetRequest) -> lease_pb2.GetResponse:
        return lease_pb2.GetResponse(lease=types_pb2.Lease(id=request.lease_id, slot=self.index), revision=1)

    async def Watch(self, request: lease_pb2.WatchRequest) -> AsyncIterator[lease_pb2.WatchResponse]:
        sent: dict[str, int] = {}
        while True:
            changed = self.changed
            for id in request.lease_ids:
                lease = self.leases[id]
                if lease.revision != sent.get(id):
                    sent[id] = lease.revision
                    yield lease_pb2.WatchResponse(lease=lease)
            yield lease_pb2.WatchResponse(revision=1, bookmark=lease_pb2.Bookmark(synced=True))
            try:
                async with asyncio.timeout(2):
                    await changed.wait()
            except TimeoutError:
                pass


def refusal(reason: str, metadata: dict[str, str]) -> bytes:
    """The details of a refusal."""
    info, retry = any_pb2.Any(), any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="wharfinger", metadata=metadata))
    delay = error_details_pb2.RetryInfo()
    delay.retry_delay.FromMilliseconds(1)
    retry.Pack(delay)
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=reason, details=[info, retry])
    return status.SerializeToString()


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers all methods of one server."""

    def __init__(self, server: dict[str, Any], index: int, ports: list[int]) -> None:
        self.server, self.ports, self.leader = server, ports, Leader(index)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method.rpartition("/")[2]
        request = getattr(lease_pb2, f"{method}Request")
        if method == "Watch":
            return grpc.unary_stream_rpc_method_handler(
                self.watch, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
            )

        async def answer(message: Any, context: Any) -> Any:
            await self.refuse(context)
            return await getattr(self.leader, method)(message)

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
        )

    async def watch(self, message: Any, context: Any) -> AsyncIterator[Any]:
        await self.refuse(context)
        async for answer in self.leader.Watch(message):
            yield answer

    async def refuse(self, context: Any) -> None:
        if self.server["does"] == "leads":
            return
        metadata = {}
        if self.server["does"] == "follows" and "leader" in self.server:
            leader = self.server["leader"]
            metadata["leader"] = f"http://127.0.0.1:{self.ports[leader]}" if isinstance(leader, int) else leader
        reason = "NOT_LEADER" if self.server["does"] == "follows" else "STOPPING"
        details = (("grpc-status-details-bin", refusal(reason, metadata)),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, reason, trailing_metadata=details)


async def main() -> None:
    wanted = json.loads(sys.stdin.readline())
    ports: list[int] = []
    servers = []
    for index, each in enumerate(wanted):
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((Handler(each, index, ports),))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        servers.append(server)
    for each, server in zip(wanted, servers):
        if each["does"] == "is dead":
            await server.stop(None)
        else:
            await server.start()
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server in servers:
        await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
