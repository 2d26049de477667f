"""A Python client through a whole lease life, as a user would write it. Usage: client.py ADDRESS STUBS PHASE [ARGS]."""

import sys
import time
import uuid

import grpc
from google.protobuf import duration_pb2

address, stubs, phase = sys.argv[1:4]
sys.path.insert(0, stubs)
from wharfinger.v1 import lease_pb2, lease_pb2_grpc, types_pb2  # noqa: E402

channel = grpc.insecure_channel(address, options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)])
service = lease_pb2_grpc.LeaseServiceStub(channel)


def seconds(n):
    return duration_pb2.Duration(seconds=n)


def lease(**more):
    request = lease_pb2.LeaseRequest(
        request_id=str(uuid.uuid4()), holder="python", selector=types_pb2.Selector(pool="copies"), **more
    )
    answer = service.Lease(request, timeout=120)
    # The same request again is the same lease.
    again = service.Lease(request, timeout=120)
    assert again.lease.id == answer.lease.id, (again, answer)
    return answer.lease


def life():
    mine = lease(wait=seconds(60), ttl=seconds(60), params={"branch": "feature"})
    assert mine.state == types_pb2.LEASE_STATE_ACTIVE, mine
    assert mine.access.path and mine.access.commit and mine.access.WhichOneof("via") == "local", mine
    assert mine.fencing_token > 0, mine
    server = service.GetServer(lease_pb2.GetServerRequest(), timeout=10)
    assert server.version and server.max_claims > 0, server
    renewed = service.Renew(lease_pb2.RenewRequest(lease_id=mine.id, ttl=seconds(120)), timeout=10).lease
    assert renewed.expires_at.seconds > mine.expires_at.seconds, (mine, renewed)
    got = service.Get(lease_pb2.GetRequest(lease_id=mine.id), timeout=10).lease
    assert got.state == types_pb2.LEASE_STATE_ACTIVE
    listed = service.List(lease_pb2.ListRequest(holders=["python"]), timeout=10)
    assert mine.id in [entry.id for entry in listed.leases]
    explained = service.Explain(lease_pb2.ExplainRequest(lease_id=mine.id), timeout=10)
    assert explained.summary and explained.history, explained
    released = service.Release(
        lease_pb2.ReleaseRequest(lease_id=mine.id, outcome=types_pb2.OUTCOME_OK, note="done"), timeout=10
    ).lease
    assert released.state == types_pb2.LEASE_STATE_RELEASED, released
    print("life: ok")


def hold():
    """Leases, prints the lease and the revision to resume from."""
    mine = lease(wait=seconds(60), ttl=seconds(600))
    for told in service.Watch(lease_pb2.WatchRequest(lease_ids=[mine.id]), timeout=60):
        if told.WhichOneof("event") == "bookmark" and told.bookmark.synced:
            print(mine.id, told.revision, flush=True)
            return


def resume(id, revision):
    """Watches on from a revision, over restarts of the server, until the lease has ended."""
    revision = int(revision)
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            request = lease_pb2.WatchRequest(lease_ids=[id], from_revision=revision)
            for told in service.Watch(request, timeout=max(1, deadline - time.time()), wait_for_ready=True):
                assert told.revision >= revision, (told, revision)
                revision = told.revision
                if told.WhichOneof("event") == "lease" and told.lease.HasField("ended_at"):
                    print("ended:", types_pb2.LeaseState.Name(told.lease.state))
                    return
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL):
                raise
            time.sleep(0.1)
    sys.exit("the end of the lease was never told")


{"life": life, "hold": hold, "resume": resume}[phase](*sys.argv[4:])
