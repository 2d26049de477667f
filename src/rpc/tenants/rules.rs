//! Roles of a configuration's own, over the port: pools, limits, verbs of operators, and what a reload takes away.

use super::*;
use crate::auth::{Limits, Taint, Verb};
use crate::pb;
use std::time::Duration;
use tonic::Code;
use wharfinger_core::{Labels, LeaseId, LeaseState, Millis};

const LEASES: &[Verb] = &[Verb::Lease, Verb::Release, Verb::Renew, Verb::Report];
const READS: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch, Verb::Explain, Verb::Timeline, Verb::GetPool];

fn pool(name: &str, os: &str, max: u32, slots: u32) -> PoolConfig {
    let labels: Labels = [("os", os), ("arch", "arm")].map(|(key, value)| (key.into(), value.into())).into();
    PoolConfig { name: name.into(), labels, ..pool_config(max, slots, TRAITS) }
}

fn pools() -> Vec<PoolConfig> {
    vec![pool("linux-1", "linux", 2, 1), pool("linux-2", "linux", 1, 4), pool("mac", "darwin", 4, 1)]
}

fn rule(lists: &[&[Verb]], pools: &[&str], scope: RuleScope, limits: Limits) -> Rule {
    let verbs = lists.iter().fold(Verbs::default(), |verbs, list| verbs.and(Verbs::of(list)));
    Rule { verbs, pools: Pools::matching(pools.iter().copied()), scope, limits }
}

fn role(name: &str, rules: Vec<Rule>) -> Roles {
    [Arc::new(Role { name: name.into(), rules })].into_iter().collect()
}

/// Leases from `linux-*` alone.
fn linux(limits: Limits) -> Roles {
    role("linux", vec![rule(&[LEASES, READS], &["linux-*"], RuleScope::Own, limits)])
}

fn by(pool: &str) -> pb::Selector {
    pb::Selector { pool: pool.into(), ..Default::default() }
}

fn by_label(key: &str, value: &str) -> pb::Selector {
    pb::Selector { labels: [(key.to_owned(), value.to_owned())].into(), ..Default::default() }
}

fn wanted(id: &str, selector: pb::Selector) -> pb::LeaseRequest {
    let wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    pb::LeaseRequest { request_id: id.into(), selector: Some(selector), wait, ..Default::default() }
}

async fn lease(world: &World, who: &Bearer, request: pb::LeaseRequest) -> Result<pb::Lease, Status> {
    let answer = world.leader.lease.clone().lease(who.call(request)).await?;
    Ok(answer.into_inner().lease.unwrap())
}

/// The whole refusal, without this name.
fn refusal<T>(result: Result<T, Status>, name: &str) -> String {
    let status = result.err().expect("it is refused");
    format!("{:?} {} {:?}", status.code(), status.message(), status.get_error_details()).replace(name, "NAME")
}

fn violation<T>(result: Result<T, Status>) -> (String, String) {
    let status = result.err().expect("it is refused");
    let details = status.get_error_details();
    let field = details.bad_request().and_then(|bad| bad.field_violations.first()).map(|one| one.field.clone());
    (outcome::<()>(Err(status)), field.unwrap_or_default())
}

#[tokio::test]
async fn a_pool_out_of_the_rules_is_one_that_never_was() {
    let callers = vec![("web", "ci", linux(Limits::default())), ("web", "free", Roles::of(&[BuiltIn::Agent]))];
    let (world, bearers) = world_of(pools(), callers).await;
    let (ci, free) = (&bearers[0], &bearers[1]);
    for server in [&world.leader, &world.follower] {
        let listed = async |who: &Bearer| {
            let answer = server.admin.clone().list_pools(who.call(Default::default())).await.unwrap().into_inner();
            answer.pools.into_iter().map(|pool| pool.name).collect::<Vec<_>>()
        };
        assert_eq!(listed(ci).await, ["linux-1", "linux-2"]);
        assert_eq!(listed(free).await, ["linux-1", "linux-2", "mac"]);
        let get = async |who: &Bearer, name: &str| {
            server
                .admin
                .clone()
                .get_pool(who.call(pb::GetPoolRequest { name: name.into(), ..Default::default() }))
                .await
        };
        let hidden = refusal(get(ci, "mac").await, "mac");
        assert_eq!(hidden, refusal(get(ci, "nowhere").await, "nowhere"));
        assert!(get(ci, "linux-1").await.is_ok() && get(free, "mac").await.is_ok());
        let can = async |who: &Bearer, pool: &str| {
            let request = pb::CanIRequest { verb: "lease".into(), pool: pool.into() };
            server.trust.clone().can_i(who.call(request)).await.unwrap().into_inner()
        };
        let (hidden, never) = (can(ci, "mac").await, can(ci, "nowhere").await);
        assert_eq!((hidden.allowed, hidden.reason.as_str()), (false, "UNKNOWN_POOL"));
        assert_eq!(hidden.message.replace("mac", ""), never.message.replace("nowhere", ""));
        assert!(can(ci, "linux-1").await.allowed && can(free, "mac").await.allowed);
    }
    let hidden = refusal(lease(&world, ci, wanted("1", by("mac"))).await, "mac");
    assert_eq!(hidden, refusal(lease(&world, ci, wanted("1", by("nowhere"))).await, "nowhere"));
    assert!(hidden.contains("UNKNOWN_POOL") && hidden.contains("linux-1, linux-2"), "{hidden}");
    let hidden = refusal(lease(&world, ci, wanted("1", by_label("os", "darwin"))).await, "darwin");
    assert_eq!(hidden, refusal(lease(&world, ci, wanted("1", by_label("os", "plan9"))).await, "plan9"));
    assert!(hidden.contains("UNKNOWN_LABEL") && hidden.contains("values there are: linux"), "{hidden}");
    assert!(lease(&world, ci, wanted("2", by("linux-1"))).await.is_ok());
    assert_eq!(lease(&world, free, wanted("3", by_label("os", "darwin"))).await.unwrap().pool, "mac");
}

#[tokio::test]
async fn labels_alone_are_served_by_pools_of_the_rules_also_by_the_next_leader() {
    let callers = vec![("web", "ci", linux(Limits::default())), ("web", "free", Roles::of(&[BuiltIn::Agent]))];
    let (world, bearers) = world_of(vec![pool("linux-1", "linux", 1, 1), pool("mac", "darwin", 4, 1)], callers).await;
    let (ci, free) = (&bearers[0], &bearers[1]);
    let first = lease(&world, ci, wanted("1", by_label("arch", "arm"))).await.unwrap();
    assert_eq!(first.pool, "linux-1");
    // The pool of its rules is full, and another one is not.
    let short = |id| pb::LeaseRequest { wait: None, ..wanted(id, by_label("arch", "arm")) };
    let second = lease(&world, ci, short("2")).await.unwrap();
    assert_eq!(lease(&world, free, wanted("3", by_label("arch", "arm"))).await.unwrap().pool, "mac");
    let id: LeaseId = second.id.parse().unwrap();
    let stored = crate::store::Store::load(&world.store).await.unwrap();
    let stored = stored.leases.iter().find(|lease| lease.id == id).unwrap();
    assert_eq!(stored.spec.selector.among, Pools::matching(["linux-*"]));
    assert_eq!((&stored.state, stored.spec.selector.pool.clone()), (&LeaseState::Queued, None));
    // A repetition of the request is the same request.
    assert_eq!(lease(&world, ci, short("2")).await.unwrap().id, second.id);
    let why = world
        .leader
        .lease
        .clone()
        .explain(ci.call(pb::ExplainRequest { lease_id: second.id, ..Default::default() }))
        .await;
    let why = why.unwrap().into_inner();
    assert!(why.satisfiable && why.blockers.iter().all(|blocker| blocker.pool == "linux-1"), "{why:?}");
}

#[tokio::test]
async fn a_request_beyond_a_limit_is_refused_as_a_whole_and_leaves_nothing() {
    let limits = Limits {
        count: Some(2),
        ttl: Some(Millis::secs(120)),
        priority: Some((-10, 10)),
        wait_in_line: Some(Millis::secs(60)),
        ..Limits::default()
    };
    let (world, bearers) = world_of(pools(), vec![("web", "ci", linux(limits))]).await;
    let ci = &bearers[0];
    let minute = |minutes: i64| Some(prost_types::Duration { seconds: minutes * 60, nanos: 0 });
    let good = pb::LeaseRequest { queue_for: minute(1), ..wanted("1", by("linux-1")) };
    let claim = |pool: &str| pb::Claim { selector: Some(by(pool)), count: 1, ..Default::default() };
    let group = |pools: &[&str]| pb::LeaseRequest {
        selector: None,
        claims: pools.iter().map(|pool| claim(pool)).collect(),
        ..good.clone()
    };
    for (wrong, reason, field) in [
        (pb::LeaseRequest { count: 3, ..good.clone() }, "PermissionDenied LIMIT", "count"),
        (pb::LeaseRequest { ttl: minute(3), ..good.clone() }, "PermissionDenied LIMIT", "ttl"),
        (pb::LeaseRequest { priority: 50, ..good.clone() }, "PermissionDenied LIMIT", "priority"),
        (pb::LeaseRequest { priority: 101, ..good.clone() }, "InvalidArgument INVALID_REQUEST", "priority"),
        (pb::LeaseRequest { queue_for: None, ..good.clone() }, "PermissionDenied LIMIT", "queue_for"),
        (group(&["linux-1", "mac"]), "NotFound UNKNOWN_POOL", "claims[1].selector.pool"),
        (group(&["linux-1", "linux-1", "linux-2"]), "PermissionDenied LIMIT", "count"),
    ] {
        assert_eq!(violation(lease(&world, ci, wrong).await), (reason.to_owned(), field.to_owned()));
        let all = world.leader.lease.clone().list(ci.call(pb::ListRequest::default())).await.unwrap().into_inner();
        assert!(all.leases.is_empty(), "{all:?}");
    }
    let status = lease(&world, ci, pb::LeaseRequest { priority: 50, ..good.clone() }).await.unwrap_err();
    assert_eq!(status.message(), "priority: 50; role \"linux\" allows -10 to 10");
    // The TTL of the pool counts where the request has none: 60 s.
    let edge = pb::LeaseRequest { priority: 10, ttl: None, ..group(&["linux-1", "linux-2"]) };
    let answer = world.leader.lease.clone().lease(ci.call(edge)).await.unwrap().into_inner();
    assert_eq!(answer.leases.len(), 2);
}

#[tokio::test]
async fn a_release_and_a_renewal_beyond_a_limit_change_nothing() {
    let limits = Limits {
        hold: Some(Millis::secs(60)),
        taint: Some(Taint::Copy),
        ttl: Some(Millis::secs(120)),
        ..Limits::default()
    };
    let (world, bearers) = world_of(pools(), vec![("web", "ci", linux(limits))]).await;
    let ci = &bearers[0];
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let alone = lease(&world, ci, wanted("1", by("linux-1"))).await.unwrap();
    let shared = lease(&world, ci, wanted("2", by("linux-2"))).await.unwrap();
    let release = async |lease: &pb::Lease, outcome: pb::Outcome, hold| {
        let (lease_id, outcome) = (lease.id.clone(), outcome.into());
        let request = pb::ReleaseRequest { lease_id, outcome, hold, ..Default::default() };
        world.leader.lease.clone().release(ci.call(request)).await
    };
    let renew = async |ttl| {
        world
            .leader
            .lease
            .clone()
            .renew(ci.call(pb::RenewRequest { lease_id: alone.id.clone(), ttl, ..Default::default() }))
            .await
    };
    let limit = |field: &str| ("PermissionDenied LIMIT".to_owned(), field.to_owned());
    assert_eq!(violation(renew(seconds(121)).await), limit("ttl"));
    assert!(renew(seconds(120)).await.is_ok() && renew(None).await.is_ok());
    assert_eq!(violation(release(&alone, pb::Outcome::Failed, seconds(61)).await), limit("hold"));
    let tainted = release(&shared, pb::Outcome::Tainted, None).await;
    assert!(tainted.as_ref().unwrap_err().message().contains("one slot"), "{tainted:?}");
    assert_eq!(violation(tainted), limit("outcome"));
    let got = world
        .leader
        .lease
        .clone()
        .get(ci.call(pb::GetRequest { lease_id: shared.id.clone(), ..Default::default() }))
        .await;
    assert_eq!(got.unwrap().into_inner().lease.unwrap().state(), pb::LeaseState::Active);
    assert!(release(&shared, pb::Outcome::Failed, None).await.is_ok());
    assert!(release(&alone, pb::Outcome::Tainted, seconds(60)).await.is_ok());
}

#[tokio::test]
async fn an_operator_of_some_pools_acts_in_those_alone() {
    let drains: &[Verb] =
        &[Verb::Drain, Verb::Undrain, Verb::Cordon, Verb::Break, Verb::Events, Verb::ResourceTimeline];
    let own = rule(&[drains, READS, &[Verb::GetResource]], &["linux-*"], RuleScope::All, Limits::default());
    let reads = rule(&[READS, &[Verb::GetResource]], &["*"], RuleScope::All, Limits::default());
    let callers = vec![
        ("web", "ci", Roles::of(&[BuiltIn::Agent])),
        ("ops", "linux", role("linux-ops", vec![own.clone()])),
        ("ops", "reads-all", role("linux-ops", vec![own, reads])),
    ];
    let (world, bearers) = world_of(pools(), callers).await;
    let (ci, linux, reads_all) = (&bearers[0], &bearers[1], &bearers[2]);
    let there = lease(&world, ci, wanted("1", by("linux-1"))).await.unwrap();
    let mac = lease(&world, ci, wanted("2", by("mac"))).await.unwrap();
    let drain = async |who: &Bearer, id: &str| {
        let request = pb::DrainRequest { resource_id: id.into(), ..Default::default() };
        outcome(world.follower.admin.clone().drain(who.call(request)).await)
    };
    assert_eq!(drain(linux, &mac.resource_id).await, "NotFound UNKNOWN_RESOURCE");
    assert_eq!(drain(reads_all, &mac.resource_id).await, "PermissionDenied NOT_ALLOWED");
    assert_eq!(drain(ci, &there.resource_id).await, "PermissionDenied NOT_ALLOWED");
    assert_eq!(drain(linux, &there.resource_id).await, "OK");
    let cordon = async |who: &Bearer, pool: &str| {
        let request = pb::CordonRequest { pool: pool.into(), ..Default::default() };
        outcome(world.leader.admin.clone().cordon(who.call(request)).await)
    };
    assert_eq!(cordon(linux, "mac").await, "NotFound UNKNOWN_POOL");
    assert_eq!(cordon(reads_all, "mac").await, "PermissionDenied NOT_ALLOWED");
    assert_eq!(cordon(linux, "linux-2").await, "OK");
    let end = async |who: &Bearer, lease: &pb::Lease| {
        let request =
            pb::BreakRequest { lease_id: lease.id.clone(), reason: "x".into(), ..pb::BreakRequest::default() };
        outcome(world.leader.admin.clone().r#break(who.call(request)).await)
    };
    assert_eq!(end(linux, &mac).await, "NotFound UNKNOWN_LEASE");
    world.follows.handle.refresh().await.unwrap();
    for server in [&world.leader, &world.follower] {
        let request = pb::ListResourcesRequest::default();
        let listed = server.admin.clone().list_resources(linux.call(request)).await.unwrap().into_inner().resources;
        assert!(!listed.is_empty() && listed.iter().all(|one| one.pool.starts_with("linux-")), "{listed:?}");
        let all =
            server.admin.clone().list_resources(reads_all.call(request_all())).await.unwrap().into_inner().resources;
        assert!(all.iter().any(|one| one.pool == "mac"));
        let request = pb::EventsRequest::default();
        let told = server.admin.clone().events(linux.call(request)).await.unwrap().into_inner().events;
        assert!(!told.is_empty() && told.iter().all(|event| event.pool.starts_with("linux-")), "{told:?}");
        let story = async |resource: &str| {
            let request = pb::TimelineRequest { resource_id: resource.into(), ..Default::default() };
            outcome(server.lease.clone().timeline(linux.call(request)).await)
        };
        assert_eq!(story(&mac.resource_id).await, "NotFound UNKNOWN_RESOURCE");
        assert_eq!(story(&there.resource_id).await, "OK");
        let listed =
            server.lease.clone().list(linux.call(pb::ListRequest::default())).await.unwrap().into_inner().leases;
        assert_eq!(listed.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&there.id]);
    }
    assert_eq!(end(linux, &there).await, "OK");
}

fn request_all() -> pb::ListResourcesRequest {
    pb::ListResourcesRequest::default()
}

#[tokio::test]
async fn a_reload_that_takes_a_part_away_ends_what_it_narrows_and_leaves_the_rest() {
    let wide = |limits: Limits| {
        let leads = rule(&[READS], &["*"], RuleScope::Tenant, Limits::default());
        role("ci", vec![rule(&[LEASES, READS], &["linux-*", "mac"], RuleScope::Own, limits), leads])
    };
    let callers = vec![("web", "ci", wide(Limits::default())), ("web", "other", Roles::of(&[BuiltIn::Agent]))];
    let (world, bearers) = world_of(vec![pool("linux-1", "linux", 1, 1), pool("mac", "darwin", 1, 1)], callers).await;
    let ci = &bearers[0];
    let held = lease(&world, ci, wanted("1", by("linux-1"))).await.unwrap();
    let watch = async |server: &Server| {
        server.lease.clone().watch(ci.call(pb::WatchRequest::default())).await.unwrap().into_inner()
    };
    let mut open = vec![watch(&world.leader).await, watch(&world.follower).await];
    let waits = tokio::spawn({
        let (mut client, call) = (world.leader.lease.clone(), ci.call(wanted("2", by("linux-1"))));
        async move { client.lease(call).await }
    });
    let set = |roles: Roles| {
        let mut known = world.known.clone();
        known[0].roles = roles;
        world.trust.set(Some(known.into())).unwrap();
    };
    // Other limits of leases, and more roles: each call is allowed as before.
    set(wide(Limits { count: Some(9), ..Limits::default() }));
    set(wide(Limits::default()).and(&Roles::of(&[BuiltIn::Lead])));
    // Calls after that are judged by the new roles, and the call that waits is asked again before one of them is answered.
    for server in [&world.leader, &world.follower, &world.leader] {
        let call = ci.call(pb::GetRequest { lease_id: held.id.clone(), ..Default::default() });
        server.lease.clone().get(call).await.unwrap();
    }
    assert!(!waits.is_finished());
    // The pool of the request is gone, and so is the view of the tenant.
    set(role("ci", vec![rule(&[LEASES, READS], &["mac"], RuleScope::Own, Limits::default())]));
    let ended = tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap().unwrap();
    assert_eq!(outcome(ended), "PermissionDenied NO_LONGER_ALLOWED");
    for stream in &mut open {
        let end = loop {
            match tokio::time::timeout(Duration::from_secs(60), stream.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the end has a reason"),
                Err(status) => break status,
            }
        };
        assert_eq!(end.code(), Code::PermissionDenied);
        assert_eq!(outcome::<()>(Err(end)), "PermissionDenied NO_LONGER_ALLOWED");
    }
    // Its lease is its own, and cannot be kept any longer.
    let renewed = world
        .leader
        .lease
        .clone()
        .renew(ci.call(pb::RenewRequest { lease_id: held.id.clone(), ..Default::default() }))
        .await;
    assert_eq!(outcome(renewed), "PermissionDenied NOT_ALLOWED");
    let release = pb::ReleaseRequest { lease_id: held.id, outcome: pb::Outcome::Ok.into(), ..Default::default() };
    assert_eq!(outcome(world.leader.lease.clone().release(ci.call(release)).await), "OK");
}

#[tokio::test]
async fn a_caller_learns_who_it_is_and_what_it_may() {
    let limits = Limits { count: Some(4), priority: Some((-100, 0)), ..Limits::default() };
    let callers = vec![("web", "ci", linux(limits)), ("web", "none", Roles::default())];
    let (world, bearers) = world_of(pools(), callers).await;
    for server in [&world.leader, &world.follower] {
        let mut trust = server.trust.clone();
        let who = trust.who_am_i(bearers[0].call(pb::WhoAmIRequest {})).await.unwrap().into_inner();
        assert_eq!((&*who.tenant, &*who.principal, &*who.proof), ("web", "token:ci", "token:ci"));
        assert_eq!(who.roles, ["linux"]);
        let [rule] = &who.rules[..] else { panic!("{who:?}") };
        assert_eq!((rule.pools.join(","), rule.scope()), ("linux-*".to_owned(), pb::RuleScope::Own));
        assert!(rule.verbs.iter().any(|verb| verb == "lease") && !rule.verbs.iter().any(|verb| verb == "events"));
        let limits: Vec<_> = rule.limits.iter().map(|limit| (&*limit.name, &*limit.allowed)).collect();
        assert_eq!(limits, [("count", "4"), ("priority", "-100 to 0")]);
        let none = trust.who_am_i(bearers[1].call(pb::WhoAmIRequest {})).await.unwrap().into_inner();
        assert!(none.roles.is_empty() && none.rules.is_empty() && &*none.principal == "token:none");
        let mut can = async |who: &Bearer, verb: &str| {
            let request = pb::CanIRequest { verb: verb.into(), pool: String::new() };
            trust.can_i(who.call(request)).await.map(|answer| answer.into_inner().allowed)
        };
        assert!(can(&bearers[0], "lease").await.unwrap() && !can(&bearers[0], "resource.drain").await.unwrap());
        assert!(!can(&bearers[1], "lease").await.unwrap());
        let wrong = can(&bearers[0], "resource.drian").await.unwrap_err();
        assert!(wrong.message().contains("did you mean \"resource.drain\"?"), "{wrong:?}");
    }
}
