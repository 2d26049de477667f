use super::*;
use crate::engine::Follower;
use crate::pb;
use crate::pb::admin_service_client::AdminServiceClient;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::rpc::testing::{Broker, TestServer, broker, follower, leading};
use crate::rpc::tests::wanted;
use prost::Message;
use prost_types::FileDescriptorSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::Code;
use tonic_types::StatusExt;
use wharfinger_core::Program;

struct Pair {
    leader: Broker,
    server: TestServer,
    follower: Follower,
    api: LeaseServiceClient<Channel>,
}

async fn client(server: &TestServer) -> LeaseServiceClient<Channel> {
    LeaseServiceClient::connect(format!("http://{}", server.address)).await.unwrap()
}

async fn pair(limits: RpcLimits) -> Pair {
    let leader = broker(1, 1).await;
    let (server, follower) = follower(&leader, limits).await;
    follower.handle.leadership().follow(leading(&leader.server));
    let api = client(&server).await;
    Pair { leader, server, follower, api }
}

fn waiting(id: &str, seconds: i64) -> pb::LeaseRequest {
    pb::LeaseRequest { wait: Some(prost_types::Duration { seconds, nanos: 0 }), ..wanted(id) }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[test]
fn each_method_is_known_as_one_that_reads_or_decides() {
    let files = FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap().file;
    let services = files.iter().filter(|file| file.package() == "wharfinger.v1").flat_map(|file| &file.service);
    let mut reads = Vec::new();
    let mut decided = Vec::new();
    for service in services {
        for method in &service.method {
            let path = format!("/wharfinger.v1.{}/{}", service.name(), method.name());
            if decides(&path) { decided.push(method.name().to_owned()) } else { reads.push(method.name().to_owned()) }
        }
    }
    reads.sort();
    let mut known = READS.map(str::to_owned).to_vec();
    known.sort();
    assert_eq!(reads, known);
    for verb in ["Lease", "Release", "Renew", "Report", "Break", "Drain", "ForceDestroy", "Weather"] {
        assert!(decided.iter().any(|method| method == verb), "{verb}");
    }
    assert!(!decides("/grpc.health.v1.Health/Check") && !decides("/") && !decides(""));
}

#[tokio::test]
async fn a_change_is_made_by_the_leader_and_read_here() {
    let mut pair = pair(RpcLimits::default()).await;
    let lease = pair.api.lease(waiting("a", 30)).await.unwrap().into_inner().lease.unwrap();
    assert_eq!((lease.state(), lease.principal.as_str()), (pb::LeaseState::Active, "local"));
    let get = pb::GetRequest { lease_id: lease.id.clone(), min_revision: lease.revision };
    let answer = pair.api.get(get).await.unwrap();
    assert!(answer.metadata().get("wharfinger-age-ms").is_some(), "it says how old it may be");
    let answer = answer.into_inner();
    assert!(answer.revision >= lease.revision);
    assert_eq!(answer.lease.unwrap(), lease);
    // A refusal comes back with all that it says.
    let asked = pb::RenewRequest { lease_id: "lse_00000000000000000000000000".into(), ..Default::default() };
    let through = pair.api.renew(asked.clone()).await.unwrap_err();
    let direct = client(&pair.leader.server).await.renew(asked).await.unwrap_err();
    assert_eq!((through.code(), through.message()), (direct.code(), direct.message()));
    assert_eq!(through.details(), direct.details());
    assert!(!through.details().is_empty());
    // An operator's verb, too.
    let mut admin = AdminServiceClient::connect(format!("http://{}", pair.server.address)).await.unwrap();
    let target = pb::CordonRequest { resource_id: lease.resource_id, reason: "x".into(), ..Default::default() };
    let told = admin.cordon(target).await.unwrap().into_inner().resource.unwrap();
    assert_eq!((told.cordoned, told.cordoned_by.as_str()), (true, "local"));
    let pools = pb::ListPoolsRequest { min_revision: told.revision };
    assert!(admin.list_pools(pools).await.unwrap().into_inner().pools[0].counters.is_none(), "only the leader counts");
}

#[tokio::test]
async fn a_command_that_is_only_to_be_validated_stays_here() {
    let mut pair = pair(RpcLimits::default()).await;
    let lease = pair.api.lease(waiting("a", 30)).await.unwrap().into_inner().lease.unwrap();
    let revision = || *pair.leader.handle.hub().revision().borrow();
    let before = revision();
    // A leader of a release that does not know the field would carry it out.
    pair.leader.server.shutdown.cancel();
    let mut admin = AdminServiceClient::connect(format!("http://{}", pair.server.address)).await.unwrap();
    let only = pb::RecycleRequest {
        resource_id: lease.resource_id.clone(),
        validate_only: true,
        ..pb::RecycleRequest::default()
    };
    let impact = admin.recycle(only).await.unwrap().into_inner().impact.unwrap();
    assert_eq!((impact.broken_lease_ids, impact.broken_count), (vec![lease.id], 1));
    assert_eq!(revision(), before, "nothing was changed");
}

#[tokio::test]
async fn one_hop_and_no_further_and_none_if_it_is_switched_off() {
    let mut pair = pair(RpcLimits::default()).await;
    let mut marked = tonic::Request::new(wanted("a"));
    marked.metadata_mut().insert(FORWARDED, "1".parse().unwrap());
    let there = format!("http://{}", pair.leader.server.address);
    let (off, other) = follower(&pair.leader, RpcLimits { forward: false, ..RpcLimits::default() }).await;
    other.handle.leadership().follow(leading(&pair.leader.server));
    let refused = [pair.api.lease(marked).await, client(&off).await.lease(wanted("a")).await];
    for status in refused.map(Result::unwrap_err) {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "NOT_LEADER"));
        assert_eq!(status.get_details_error_info().unwrap().metadata["leader"], there);
    }
    assert_eq!(pair.leader.store.load_now().leases.len(), 0, "nothing was done");
}

#[tokio::test]
async fn a_client_that_goes_away_and_a_deadline_end_the_call_at_the_leader() {
    let mut pair = pair(RpcLimits::default()).await;
    let held = pair.api.lease(waiting("a", 30)).await.unwrap().into_inner().lease.unwrap();
    let watchers = || pair.leader.handle.hub().watchers();
    let mut api = pair.api.clone();
    let gone = tokio::spawn(async move { api.lease(waiting("b", 300)).await });
    while watchers() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gone.abort();
    while watchers() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut short = tonic::Request::new(waiting("c", 300));
    short.set_timeout(Duration::from_millis(300));
    let begun = Instant::now();
    let status = pair.api.lease(short).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    while watchers() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let release = pb::ReleaseRequest { lease_id: held.id, ..Default::default() };
    pair.api.release(release).await.unwrap();
}

/// The leader is gone in the middle of a call: its caller gets an error, and finds its lease again through the next one.
#[tokio::test]
async fn a_call_whose_leader_is_lost_fails_and_can_be_repeated() {
    let mut pair = pair(RpcLimits::default()).await;
    let held = pair.api.lease(waiting("a", 30)).await.unwrap().into_inner().lease.unwrap();
    let mut api = pair.api.clone();
    let lost = tokio::spawn(async move { api.lease(waiting("b", 300)).await });
    while pair.leader.handle.hub().watchers() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Another port of the same broker stands for the next leader.
    let next = crate::rpc::testing::serving(RpcLimits::default(), pair.leader.handle.clone()).await;
    pair.follower.handle.leadership().follow(leading(&next));
    let status = lost.await.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "LEADER_LOST"));
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let release = pb::ReleaseRequest { lease_id: held.id, ..Default::default() };
    pair.api.release(release).await.unwrap();
    let again = pair.api.lease(waiting("b", 30)).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(again.state(), pb::LeaseState::Active);
    assert_eq!(pair.leader.store.load_now().leases.len(), 2, "it was asked for once");
}

/// A way to a port. Returns its address and the number of connections that it took.
async fn way(to: std::net::SocketAddr) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, taken)
}

/// While no server leads a call waits for a while, since nothing was done.
#[tokio::test]
async fn a_call_waits_for_a_server_that_leads() {
    let mut pair = pair(RpcLimits::default()).await;
    let leadership = pair.follower.handle.leadership().clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    // It waits until its deadline and no longer: without a leader, and with one that refuses connections.
    for nobody in [None, Some(LeaderInfo { address: refusing.into(), forwarding_key: "".into() })] {
        leadership.follow(nobody);
        let mut short = tonic::Request::new(wanted("b"));
        short.set_timeout(Duration::from_millis(200));
        let status = pair.api.lease(short).await.unwrap_err();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    }
    // A server that follows itself. A call that it just forwarded when the leader changed is lost, and says so; one that waits goes on.
    for _ in 0..20 {
        let (itself, seen) = way(pair.server.address).await;
        leadership.follow(Some(LeaderInfo { address: itself.into(), ..leading(&pair.server).unwrap() }));
        let mut api = pair.api.clone();
        let waits = tokio::spawn(async move { api.lease(wanted("a")).await });
        while seen.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!waits.is_finished());
        leadership.follow(leading(&pair.leader.server));
        match waits.await.unwrap() {
            Ok(_) => return,
            Err(status) => assert_eq!(reason(&status), "LEADER_LOST", "{status:?}"),
        }
    }
    panic!("each call was lost");
}

#[tokio::test]
async fn the_rest_of_a_deadline_is_read_as_grpc_writes_it() {
    let read = |text: &str| left(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]));
    assert_eq!(read("2S"), Some(Duration::from_secs(2)));
    assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
    assert_eq!(read("3H"), Some(Duration::from_secs(10_800)));
    for wrong in ["", "S", "1", "123456789S", "-1S", "1x", "ä"] {
        assert_eq!(HeaderValue::from_str(wrong).ok().and_then(|_| read(wrong)), None, "{wrong:?}");
    }
}

/// The leader gets a fixed list of headers, whatever the client sent.
#[test]
fn no_header_of_the_client_goes_on_but_those_of_a_fixed_list() {
    let identity = Identity {
        tenant: "web".into(),
        principal: "token:ci".into(),
        roles: crate::auth::Roles::default(),
        proof: crate::auth::Proof::token("ci".into()),
        expires: None,
        peer: Some("10.0.0.9:1".into()),
        via: None,
        program: Program::Api,
        trace: None,
    };
    let kept = ["content-type", "te", "grpc-encoding", "grpc-accept-encoding", "user-agent", "traceparent"];
    let left = [
        "authorization",
        "Authorization",
        "authorization-bin",
        "cookie",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "wharfinger-tenant",
        "wharfinger-caller",
        "wharfinger-proof",
        "wharfinger-identity",
        "wharfinger-seal",
        "wharfinger-program",
        "wharfinger-passed",
        "grpc-timeout",
        "grpc-metadata-bin",
        "host",
    ];
    let mut request = Request::post("/wharfinger.v1.LeaseService/Lease");
    for name in kept.iter().chain(&left) {
        request = request.header(*name, "of-the-client");
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    parts.extensions.insert(Arc::new(identity.clone()));
    let leader = LeaderInfo { address: "http://a:1".into(), forwarding_key: "key".into() };
    let message = Bytes::from_static(b"message");
    let deadline = Some(Instant::now() + Duration::from_secs(5));
    let call = dressed(&parts, &message, &leader, deadline).unwrap();
    let headers = call.headers();
    let mut names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let mut expected = [&kept[..], &[FORWARDED, IDENTITY, PROGRAM, SEAL, TIMEOUT]].concat();
    expected.sort_unstable();
    assert_eq!(names, expected, "an old leader gets a proof for the local caller alone");
    let ours = |name: &str| headers[name] != "of-the-client";
    assert!([FORWARDED, IDENTITY, PROGRAM, SEAL, TIMEOUT].into_iter().all(ours), "{headers:?}");
    let told = Passed::decode(headers[IDENTITY].to_str().unwrap()).unwrap();
    assert_eq!(told, Passed::from(&identity));
    let seal = headers[SEAL].to_str().unwrap();
    assert!(forward_auth::is_sealed("key", parts.uri.path(), headers[IDENTITY].to_str().unwrap(), b"message", seal));
}
