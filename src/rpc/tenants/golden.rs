//! Each method of the descriptor set, by each caller, on each server.

use super::*;
use crate::pb;
use crate::rpc::tests::wanted;
use prost::Message;
use prost_types::FileDescriptorSet;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_stream::StreamExt as _;
use wharfinger_core::LeaseId;

/// The call is granted.
pub(super) const OK: &str = "OK";
/// The caller is not known.
const WHO: &str = "Unauthenticated NO_CREDENTIALS";
/// The lease is not there.
pub(super) const NO: &str = "NotFound UNKNOWN_LEASE";
/// The roles do not allow the method.
const MAY: &str = "PermissionDenied NOT_ALLOWED";
/// The lease is in view, and another principal's.
const NOT: &str = "PermissionDenied NOT_YOURS";

/// The session is not there.
const NEVER: &str = "NotFound UNKNOWN_SESSION";
/// A server that follows has no sessions.
const ELSEWHERE: &str = "Unavailable NOT_LEADER";

/// Holders of the pool log in without certificates.
const PLAIN: &str = "FailedPrecondition NO_CERTIFICATES";

const AGENT: &[BuiltIn] = &[BuiltIn::Agent];

/// Callers of a lease of `web`/`token:owner`. The first has no token.
pub(super) const CALLERS: [(&str, Option<Who>); 11] = [
    ("none", None),
    ("other tenant", Some(Who::new("other", "stranger", AGENT))),
    ("other tenant's lead", Some(Who::new("other", "foreign-lead", &[BuiltIn::Agent, BuiltIn::Lead]))),
    ("same tenant", Some(Who::new("web", "colleague", AGENT))),
    ("owner", Some(Who::new("web", "owner", AGENT))),
    ("reader", Some(Who::new("web", "reader", &[BuiltIn::Reader]))),
    ("lead", Some(Who::new("web", "lead", &[BuiltIn::Lead]))),
    ("admin", Some(Who::new("ops", "admin", &[BuiltIn::Admin]))),
    (
        "operator of the pool",
        Some(Who { rule: Some((OPERATOR, &["p"], RuleScope::All)), ..Who::new("ops", "of-p", &[]) }),
    ),
    (
        "operator of another",
        Some(Who { rule: Some((OPERATOR, &["q-*"], RuleScope::All)), ..Who::new("ops", "of-q", &[]) }),
    ),
    ("without a role", Some(Who::new("web", "none", &[]))),
];
/// The verbs of an operator of some pools.
const OPERATOR: &[&str] =
    &["get", "list", "watch", "explain", "timeline", "pool.get", "lease.break", "resource.*", "events"];
pub(super) const OWNER: usize = 4;
const ADMIN: usize = 7;

/// A row: the method, and the outcome for each of [`CALLERS`], the same on the server that leads and on one that follows.
pub(super) type Row = (&'static str, [&'static str; 11]);

/// The resource is not there.
const NONE: &str = "NotFound UNKNOWN_RESOURCE";

/// Methods for operators, on a resource.
const OPERATORS: [&str; 11] = [WHO, MAY, MAY, MAY, MAY, MAY, MAY, OK, OK, NONE, MAY];
/// Methods for operators, on no resource.
const LISTS: [&str; 11] = [WHO, MAY, MAY, MAY, MAY, MAY, MAY, OK, OK, OK, MAY];
/// Methods that read what all tenants share.
const SHARED: [&str; 11] = [WHO, OK, OK, OK, OK, OK, OK, OK, OK, OK, MAY];
/// Methods that read one lease.
const READS: [&str; 11] = [WHO, NO, NO, NO, OK, OK, OK, OK, OK, NO, MAY];
/// Methods that keep a lease.
const KEEPS: [&str; 11] = [WHO, NO, NO, NO, OK, MAY, MAY, NOT, MAY, MAY, MAY];
/// Methods of the caller to itself.
const ITSELF: [&str; 11] = [WHO, OK, OK, OK, OK, OK, OK, OK, OK, OK, OK];

pub(super) const TABLE: [Row; 42] = [
    ("LeaseService/Lease", [WHO, OK, OK, OK, OK, MAY, MAY, OK, MAY, MAY, MAY]),
    ("LeaseService/Release", [WHO, NO, NO, NO, OK, MAY, OK, NOT, MAY, MAY, MAY]),
    ("LeaseService/Renew", KEEPS),
    ("LeaseService/Report", KEEPS),
    ("LeaseService/Session", [WHO, OK, OK, OK, OK, MAY, MAY, OK, MAY, MAY, MAY]),
    // The pool of this world has a key for its holders: the caller's lease comes before that.
    ("LeaseService/Login", [WHO, NO, NO, NO, PLAIN, MAY, MAY, NOT, MAY, MAY, MAY]),
    ("LeaseService/Watch", READS),
    ("LeaseService/Get", READS),
    ("LeaseService/List", SHARED),
    ("LeaseService/Explain", READS),
    ("LeaseService/ListQueue", SHARED),
    ("LeaseService/Timeline", READS),
    ("LeaseService/GetServer", SHARED),
    ("LeaseService/ListServers", SHARED),
    ("AdminService/ListPools", SHARED),
    ("AdminService/ListTenants", SHARED),
    ("AdminService/GetPool", [WHO, OK, OK, OK, OK, OK, OK, OK, OK, "NotFound UNKNOWN_POOL", MAY]),
    ("AdminService/ListResources", LISTS),
    ("AdminService/GetResource", OPERATORS),
    ("AdminService/WatchResources", LISTS),
    ("AdminService/Cordon", OPERATORS),
    ("AdminService/Uncordon", OPERATORS),
    ("AdminService/Drain", OPERATORS),
    ("AdminService/Undrain", OPERATORS),
    ("AdminService/Check", OPERATORS),
    ("AdminService/Taint", OPERATORS),
    ("AdminService/Quarantine", OPERATORS),
    ("AdminService/Hold", OPERATORS),
    ("AdminService/Recover", OPERATORS),
    ("AdminService/Recycle", OPERATORS),
    ("AdminService/ForceDestroy", OPERATORS),
    ("AdminService/Note", OPERATORS),
    ("AdminService/Break", [WHO, MAY, NO, MAY, MAY, MAY, OK, OK, OK, NO, MAY]),
    ("AdminService/Weather", [WHO, MAY, MAY, MAY, MAY, MAY, MAY, OK, MAY, MAY, MAY]),
    ("AdminService/Events", LISTS),
    ("TrustService/WhoAmI", ITSELF),
    ("TrustService/CanI", ITSELF),
    ("LeaseService/Renew of several", KEEPS),
    ("LeaseService/Session of another", [WHO, NEVER, NEVER, NEVER, OK, MAY, MAY, NEVER, MAY, MAY, MAY]),
    ("LeaseService/Session that keeps a lease", KEEPS),
    // Not of a lease, but of a resource that several tenants share.
    ("LeaseService/Timeline of a resource", OPERATORS),
    ("AdminService/Hold of a lease", [WHO, MAY, MAY, MAY, MAY, MAY, MAY, OK, OK, NO, MAY]),
];

/// Rows that ask a method in a second way.
const AGAIN: [&str; 5] = [
    "LeaseService/Renew of several",
    "LeaseService/Session of another",
    "LeaseService/Session that keeps a lease",
    "LeaseService/Timeline of a resource",
    "AdminService/Hold of a lease",
];

#[test]
fn each_method_has_a_row() {
    let files = FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap().file;
    let services = files.iter().filter(|file| file.package() == "wharfinger.v1").flat_map(|file| &file.service);
    let all: BTreeSet<String> = services
        .flat_map(|service| service.method.iter().map(|method| format!("{}/{}", service.name(), method.name())))
        .collect();
    let rows: BTreeSet<String> =
        TABLE.iter().map(|(name, _)| (*name).to_owned()).filter(|name| !AGAIN.contains(&&**name)).collect();
    assert_eq!(all, rows, "a method has a row here and its callers in auth/access.rs");
}

/// Calls a method on a lease and on the resource that it is on.
/// `session`: one of the lease's owner.
pub(super) async fn call(
    server: &Server,
    by: &Bearer,
    method: &str,
    lease: &pb::Lease,
    (request_id, session): (String, &str),
) -> Result<(), Status> {
    let (mut leases, mut admin, mut trust) = (server.lease.clone(), server.admin.clone(), server.trust.clone());
    let (lease_id, resource_id) = (lease.id.clone(), lease.resource_id.clone());
    let reason = String::from("because");
    macro_rules! done {
        ($client:ident . $method:ident ( $message:expr )) => {
            $client.$method(by.call($message)).await.map(drop)
        };
    }
    let hour = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    match method {
        "LeaseService/Lease" => done!(leases.lease(pb::LeaseRequest { request_id, ..wanted("x") })),
        "LeaseService/Release" => done!(leases.release(pb::ReleaseRequest {
            lease_id,
            outcome: pb::Outcome::Ok.into(),
            ..Default::default()
        })),
        "LeaseService/Renew" => done!(leases.renew(pb::RenewRequest { lease_id, ..Default::default() })),
        "LeaseService/Renew of several" => {
            let request = pb::RenewRequest { lease_ids: vec![lease_id], ..Default::default() };
            let results = leases.renew(by.call(request)).await?.into_inner().results;
            match results.into_iter().next().and_then(|first| first.result) {
                Some(pb::renew_result::Result::Lease(_)) => Ok(()),
                Some(pb::renew_result::Result::Refusal(refusal)) => Err(refusal.into()),
                None => panic!("a lease has no result"),
            }
        }
        "LeaseService/Report" => done!(leases.report(pb::ReportRequest { lease_id, ..Default::default() })),
        "LeaseService/Login" => done!(leases.login(pb::LoginRequest { lease_id, public_key: String::new() })),
        "LeaseService/Watch" => {
            let request = pb::WatchRequest { lease_ids: vec![lease_id], ..Default::default() };
            let mut stream = leases.watch(by.call(request)).await?.into_inner();
            stream.message().await.map(drop)
        }
        "LeaseService/Session" => opened(server, by, pb::SessionRequest::default(), "").await.map(drop),
        "LeaseService/Session of another" => opened(server, by, pb::SessionRequest::default(), session).await.map(drop),
        "LeaseService/Session that keeps a lease" => {
            let renew = pb::RenewRequest { lease_id, ..Default::default() };
            let call = pb::SessionCall { id: 1, call: Some(pb::session_call::Call::Renew(renew)) };
            let message = pb::SessionRequest { calls: vec![call], ..Default::default() };
            match opened(server, by, message, "").await?.answer {
                Some(pb::session_answer::Answer::Renew(_)) => Ok(()),
                Some(pb::session_answer::Answer::Refusal(refusal)) => Err(refusal.into()),
                other => panic!("{other:?}"),
            }
        }
        "LeaseService/Get" => done!(leases.get(pb::GetRequest { lease_id, ..Default::default() })),
        "LeaseService/List" => done!(leases.list(pb::ListRequest::default())),
        "LeaseService/Explain" => done!(leases.explain(pb::ExplainRequest { lease_id, ..Default::default() })),
        "LeaseService/ListQueue" => done!(leases.list_queue(pb::ListQueueRequest::default())),
        "LeaseService/Timeline" => done!(leases.timeline(pb::TimelineRequest { lease_id, ..Default::default() })),
        "LeaseService/Timeline of a resource" => {
            done!(leases.timeline(pb::TimelineRequest { resource_id, ..Default::default() }))
        }
        "LeaseService/GetServer" => done!(leases.get_server(pb::GetServerRequest {})),
        "LeaseService/ListServers" => done!(leases.list_servers(pb::ListServersRequest {})),
        "AdminService/ListPools" => done!(admin.list_pools(pb::ListPoolsRequest::default())),
        "AdminService/ListTenants" => done!(admin.list_tenants(pb::ListTenantsRequest::default())),
        "AdminService/GetPool" => done!(admin.get_pool(pb::GetPoolRequest { name: "p".into(), ..Default::default() })),
        "AdminService/ListResources" => done!(admin.list_resources(pb::ListResourcesRequest::default())),
        "AdminService/GetResource" => {
            done!(admin.get_resource(pb::GetResourceRequest { resource_id, ..Default::default() }))
        }
        "AdminService/WatchResources" => {
            let request = pb::WatchResourcesRequest { include_pools: true, ..Default::default() };
            let mut stream = admin.watch_resources(by.call(request)).await?.into_inner();
            stream.message().await.map(drop)
        }
        "AdminService/Cordon" => done!(admin.cordon(pb::CordonRequest { resource_id, ..Default::default() })),
        "AdminService/Uncordon" => done!(admin.uncordon(pb::UncordonRequest { resource_id, ..Default::default() })),
        "AdminService/Drain" => done!(admin.drain(pb::DrainRequest { resource_id, ..Default::default() })),
        "AdminService/Undrain" => done!(admin.undrain(pb::UndrainRequest { resource_id, ..Default::default() })),
        "AdminService/Check" => done!(admin.check(pb::CheckRequest { resource_id, ..Default::default() })),
        "AdminService/Taint" => done!(admin.taint(pb::TaintRequest { resource_id, ..Default::default() })),
        "AdminService/Quarantine" => {
            done!(admin.quarantine(pb::QuarantineRequest { resource_id, reason, ..Default::default() }))
        }
        "AdminService/Hold" => {
            done!(admin.hold(pb::HoldRequest { resource_id, hold: hour, ..Default::default() }))
        }
        "AdminService/Hold of a lease" => {
            done!(admin.hold(pb::HoldRequest { lease_id, hold: hour, ..Default::default() }))
        }
        "AdminService/Recover" => done!(admin.recover(pb::RecoverRequest { resource_id, ..Default::default() })),
        "AdminService/Recycle" => done!(admin.recycle(pb::RecycleRequest { resource_id, ..Default::default() })),
        "AdminService/ForceDestroy" => {
            done!(admin.force_destroy(pb::ForceDestroyRequest { resource_id, reason, ..Default::default() }))
        }
        "AdminService/Note" => done!(admin.note(pb::NoteRequest { resource_id, text: reason, ..Default::default() })),
        "AdminService/Break" => {
            done!(admin.r#break(pb::BreakRequest { lease_id, reason, ..pb::BreakRequest::default() }))
        }
        "AdminService/Weather" => done!(admin.weather(pb::WeatherRequest {})),
        "TrustService/WhoAmI" => done!(trust.who_am_i(pb::WhoAmIRequest {})),
        "TrustService/CanI" => done!(trust.can_i(pb::CanIRequest { verb: "get".into(), pool: String::new() })),
        "AdminService/Events" => done!(admin.events(pb::EventsRequest::default())),
        other => panic!("{other} has no call in this test"),
    }
}

/// Opens a session, or resumes this one. Returns the first answer to the calls of the message.
async fn opened(
    server: &Server,
    by: &Bearer,
    message: pb::SessionRequest,
    session: &str,
) -> Result<pb::SessionAnswer, Status> {
    let open = pb::SessionOpen { session_id: session.into(), ..Default::default() };
    let wanted = message.calls.len();
    let first = pb::SessionRequest { open: Some(open), ..message };
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let mut stream = server.lease.clone().session(by.call(requests)).await?.into_inner();
    let mut answers = Vec::new();
    let mut is_open = false;
    while !is_open || answers.len() < wanted {
        let message = stream.message().await?.expect("the stream of a session stays");
        is_open |= message.opened.is_some();
        answers.extend(message.answers);
    }
    Ok(answers.pop().unwrap_or_default())
}

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// An id that no other request has.
pub(super) fn fresh() -> String {
    format!("request-{}", REQUESTS.fetch_add(1, Ordering::Relaxed))
}

pub(super) async fn lease_of(world: &World, owner: &Bearer) -> pb::Lease {
    let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request = pb::LeaseRequest { request_id: fresh(), wait, ..wanted("owner") };
    let lease = world.leader.lease.clone().lease(owner.call(request)).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(lease.state(), pb::LeaseState::Active, "{lease:?}");
    lease
}

/// A session of the owner, whose stream stays for as long as the test.
async fn session_of(world: &World, owner: &Bearer) -> (String, tonic::Streaming<pb::SessionResponse>) {
    let first = pb::SessionRequest { open: Some(pb::SessionOpen::default()), ..Default::default() };
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let mut stream = world.leader.lease.clone().session(owner.call(requests)).await.unwrap().into_inner();
    let opened = stream.message().await.unwrap().and_then(|message| message.opened).unwrap();
    (opened.session_id, stream)
}

/// The state of a lease, to see that nothing of it changed.
async fn row(world: &World, id: &str) -> String {
    let id: LeaseId = id.parse().unwrap();
    world
        .handle
        .read(move |core, _| format!("{:?}", core.lease(id).map(|row| (row.revision, row.expires_at))))
        .await
        .unwrap()
}

#[tokio::test]
async fn the_table_of_all_methods_callers_and_servers_holds() {
    let callers: Vec<Who> = CALLERS.iter().filter_map(|(_, who)| *who).collect();
    let (world, bearers) = world(200, 1, &callers).await;
    let by = |n: usize| if n == 0 { Bearer(None) } else { bearers[n - 1].clone() };
    let owner = by(OWNER);
    let mut wrong = Vec::new();
    for (method, expected) in &TABLE {
        for (n, (name, _)) in CALLERS.iter().enumerate() {
            for (server, place) in [(&world.leader, "leader"), (&world.follower, "follower")] {
                let lease = lease_of(&world, &owner).await;
                let before = row(&world, &lease.id).await;
                let foreign = match method.ends_with(" of another") {
                    true => Some(session_of(&world, &owner).await),
                    false => None,
                };
                let session = foreign.as_ref().map_or("", |(id, _)| id);
                let found = outcome(call(server, &by(n), method, &lease, (fresh(), session)).await);
                // A server that follows sends a caller elsewhere whom the verb of the method does not refuse.
                let elsewhere =
                    method.contains("/Session") && place == "follower" && ![WHO, MAY].contains(&expected[n]);
                let expected = if elsewhere { ELSEWHERE } else { expected[n] };
                if found != expected {
                    wrong.push(format!("{method} by {name} on the {place}: {found}, not {expected}"));
                }
                if found != OK {
                    assert_eq!(row(&world, &lease.id).await, before, "{method} by {name} on the {place}");
                }
                // The leftovers of the call are removed: each cell begins with the same world.
                let mut admin = world.leader.admin.clone();
                let (resource_id, reason) = (lease.resource_id, "next cell".into());
                let gone = pb::ForceDestroyRequest { resource_id, reason, ..Default::default() };
                if let Err(status) = admin.force_destroy(by(ADMIN).call(gone)).await {
                    // FAILED_PRECONDITION: the method itself has removed it.
                    assert_eq!(i32::from(status.code()), 9, "{status:?}");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}

/// The refusal of a foreign lease is that of one which never was, but for the id.
#[tokio::test]
async fn a_foreign_lease_is_refused_with_the_same_bytes_as_one_that_never_was() {
    let callers: Vec<Who> = CALLERS.iter().filter_map(|(_, who)| *who).collect();
    let (world, bearers) = world(2, 8, &callers).await;
    let (owner, stranger, lead) = (&bearers[OWNER - 1], &bearers[0], &bearers[1]);
    let lease = lease_of(&world, owner).await;
    let (session, _stream) = session_of(&world, owner).await;
    let never = pb::Lease { id: LeaseId::new(77).to_string(), ..lease.clone() };
    let other_pool = &bearers[8];
    let methods = TABLE.iter().filter(|(_, expected)| expected[2] == NO).map(|(method, _)| *method);
    let mut compared = 0;
    for method in methods {
        for by in [stranger, lead, other_pool] {
            for server in [&world.leader, &world.follower] {
                let foreign = call(server, by, method, &lease, (fresh(), &session)).await.unwrap_err();
                let unknown = call(server, by, method, &never, (fresh(), &session)).await.unwrap_err();
                let bytes = |status: &Status, id: &str| {
                    let text = format!("{:?} {} {:?}", status.code(), status.message(), status.get_error_details());
                    text.replace(id, "ID")
                };
                assert_eq!(bytes(&foreign, &lease.id), bytes(&unknown, &never.id), "{method}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 30, "{compared}");
    // A foreign id beside an own one, and an empty filter.
    let mut leases = world.follower.lease.clone();
    let own = pb::LeaseRequest { request_id: fresh(), ..wanted("stranger") };
    let own = leases.lease(stranger.call(own)).await.unwrap().into_inner().lease.unwrap();
    let both = pb::WatchRequest { lease_ids: vec![own.id.clone(), lease.id.clone()], ..Default::default() };
    let mut stream = leases.watch(stranger.call(both)).await.unwrap().into_inner();
    let refused = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a foreign id is refused"),
            Err(status) => break status,
        }
    };
    assert_eq!(outcome::<()>(Err(refused)), NO);
    let listed = leases.list(stranger.call(pb::ListRequest::default())).await.unwrap().into_inner().leases;
    assert_eq!(listed.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&own.id]);
    let foreign_holder = pb::ListRequest { holders: vec!["owner".into()], ..Default::default() };
    assert!(leases.list(stranger.call(foreign_holder)).await.unwrap().into_inner().leases.is_empty());
    // A page token of another's list is a place, and shows no more.
    let token = pb::ListRequest { page_token: lease.id.clone(), ..Default::default() };
    let listed = leases.list(stranger.call(token)).await.unwrap().into_inner().leases;
    assert!(listed.iter().all(|found| found.id == own.id), "{listed:?}");
    drop(world.follows);
}

/// The refusal of a foreign session is that of one which never was, but for the id; and it is still the owner's.
#[tokio::test]
async fn a_foreign_session_is_refused_with_the_same_bytes_as_one_that_never_was() {
    let callers: Vec<Who> = CALLERS.iter().filter_map(|(_, who)| *who).collect();
    let (world, bearers) = world(2, 8, &callers).await;
    let owner = &bearers[OWNER - 1];
    let (session, mut stream) = session_of(&world, owner).await;
    let never = wharfinger_core::SessionId::new(77).to_string();
    for by in [&bearers[0], &bearers[1], &bearers[2], &bearers[ADMIN - 1]] {
        let resumed = async |id: &str| opened(&world.leader, by, pb::SessionRequest::default(), id).await.unwrap_err();
        let bytes = |status: &Status, id: &str| {
            let text = format!("{:?} {} {:?}", status.code(), status.message(), status.get_error_details());
            text.replace(id, "ID")
        };
        let (foreign, unknown) = (resumed(&session).await, resumed(&never).await);
        assert_eq!(bytes(&foreign, &session), bytes(&unknown, &never));
    }
    // Its own stream goes on, until the owner resumes it by another one.
    opened(&world.leader, owner, pb::SessionRequest::default(), &session).await.unwrap();
    let _ = &mut stream;
    drop(world.follows);
}

/// Each method, by a bearer whose token has expired or was taken away since.
#[tokio::test]
async fn each_method_refuses_a_token_that_has_expired_or_is_gone() {
    let callers: Vec<Who> = CALLERS.iter().filter_map(|(_, who)| *who).collect();
    let (world, bearers) = world(2, 8, &callers).await;
    let (owner, admin) = (&bearers[OWNER - 1], &bearers[ADMIN - 1]);
    let lease = lease_of(&world, owner).await;
    let mut open = Vec::new();
    for server in [&world.leader, &world.follower] {
        let request = pb::WatchRequest { lease_ids: vec![lease.id.clone()], ..Default::default() };
        open.push(server.lease.clone().watch(owner.call(request)).await.unwrap().into_inner());
    }
    let (_session, mut stream) = session_of(&world, owner).await;
    let past = Some(std::time::UNIX_EPOCH + Duration::from_secs(1));
    let expired = world.known.iter().cloned().map(|token| StaticToken { expires: past, ..token }).collect();
    for (known, refused) in [(expired, "Unauthenticated TOKEN_EXPIRED"), (Vec::new(), "Unauthenticated TOKEN_UNKNOWN")]
    {
        world.trust.set(Some(known.into())).unwrap();
        for (method, _) in &TABLE {
            for by in [owner, admin] {
                for server in [&world.leader, &world.follower] {
                    let found = call(server, by, method, &lease, (fresh(), "")).await;
                    assert_eq!(outcome(found), refused, "{method}");
                }
            }
        }
    }
    // The open streams have ended, too.
    for mut stream in open {
        let end = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the end has a reason"),
                Err(status) => break outcome::<()>(Err(status)),
            }
        };
        assert_eq!(end, "Unauthenticated TOKEN_EXPIRED", "the change that came first ended it");
    }
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the end has a reason"),
            Err(status) => break outcome::<()>(Err(status)),
        }
    };
    assert_eq!(end, "Unauthenticated TOKEN_EXPIRED");
    let left = world.handle.read(|core, _| core.sessions().count()).await.unwrap();
    assert_eq!(left, 0, "a session that keeps nothing ends with its stream");
    // Known again, it is the same caller, and its lease is there.
    world.trust.set(Some(world.known.clone().into())).unwrap();
    for server in [&world.leader, &world.follower] {
        assert_eq!(outcome(call(server, owner, "LeaseService/Get", &lease, (fresh(), "")).await), OK);
    }
}
