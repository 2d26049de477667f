//! Sessions: heartbeats keep leases, the end of the stream is doubt, silence is evidence.

use crate::world::{Kind, START, World, failure, inventory, made_at_will, want};
use std::sync::Arc;
use wharfinger_core::{
    Blame, Caller, Claim, Core, Ended, EventKind, Input, LeaseId, LeaseRequest, LeaseState, Limits, Millis, NoticeKind,
    Outcome, PoolConfig, Rejection, RejectionKind, Reply, Selector, Session, SessionRequest, SessionStream, Snapshot,
    Subject, Timestamp,
};

const TTL: Millis = Millis::secs(20);
const GRACE: Millis = Millis::secs(8);

fn world() -> World {
    World::new(vec![inventory("hosts", &["h1", "h2", "h3"])])
}

fn ann() -> Caller {
    Caller::sole_tenant("ann")
}

fn request() -> SessionRequest {
    SessionRequest { caller: ann(), holder: Arc::from("agent 7"), ttl: Some(TTL), grace: Some(GRACE) }
}

fn session(reply: Result<Reply, Rejection>) -> SessionStream {
    match reply.unwrap() {
        Reply::Session(row) => row.present(),
        other => panic!("{other:?}"),
    }
}

fn open(w: &mut World) -> SessionStream {
    session(w.step(Input::OpenSession(request())))
}

fn resume(w: &mut World, stream: SessionStream) -> SessionStream {
    session(w.step(Input::ResumeSession { session: stream.session, caller: ann() }))
}

fn row(w: &World, stream: SessionStream) -> Option<&Arc<Session>> {
    w.core.session(stream.session)
}

/// A request for a lease of `hosts`, kept by a session.
fn kept(stream: SessionStream) -> LeaseRequest {
    LeaseRequest { session: Some(stream), ..want("hosts") }
}

/// Beats once a second for this long.
fn beats(w: &mut World, stream: SessionStream, seconds: i64) {
    for _ in 0..seconds {
        w.pass(Millis::secs(1));
        w.step(Input::Beat(stream)).unwrap();
    }
}

fn keep(w: &mut World, lease: LeaseId, stream: SessionStream) -> Result<(), Rejection> {
    match w.step(Input::KeepAll { leases: vec![lease], caller: ann(), stream })? {
        Reply::Each(each) => each.into_iter().next().unwrap().map(drop),
        other => panic!("{other:?}"),
    }
}

/// The kinds and texts of the entries of the last step on sessions.
fn entries(w: &World) -> Vec<(EventKind, &str)> {
    let ours = |subject: &Subject| matches!(subject, Subject::Session(_));
    w.last.events.iter().filter(|event| ours(&event.subject)).map(|event| (event.kind, &*event.detail)).collect()
}

#[test]
fn heartbeats_keep_all_leases_and_change_no_row() {
    let mut w = world();
    let stream = open(&mut w);
    let leases = [w.ask(kept(stream)), w.ask(kept(stream))];
    w.all_works();
    assert_eq!(w.states(&leases), ["ACTIVE", "ACTIVE"]);
    assert_eq!(w.row(leases[0]).expires_at, None, "its session keeps it");
    let revision = w.core.revision();
    for _ in 0..100 {
        w.pass(Millis::secs(1));
        w.step(Input::Beat(stream)).unwrap();
        assert!(w.last.is_empty(), "a heartbeat is stored nowhere");
    }
    assert_eq!((w.states(&leases), w.core.revision()), (vec!["ACTIVE"; 2], revision));
    assert_eq!(row(&w, stream).unwrap().doubt, None);
}

#[test]
fn silence_for_the_ttl_ends_a_session_and_its_leases() {
    let mut w = world();
    let stream = open(&mut w);
    let lease = w.ask(kept(stream));
    w.all_works();
    beats(&mut w, stream, 5);
    w.pass(Millis(TTL.0 - 1));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis(1));
    assert_eq!((w.state(lease), row(&w, stream)), ("EXPIRED", None));
    assert_eq!(entries(&w), [(EventKind::SessionLost, "it was silent for 20 s, with 1 leases (agent 7)")]);
    let end = w.last.events.iter().find(|event| event.kind == EventKind::LeaseExpired).unwrap();
    assert_eq!(&*end.detail, format!("{}, which kept it, was lost", stream.session));
    assert_eq!(w.step(Input::Beat(stream)).unwrap_err().reason, "UNKNOWN_SESSION");
}

#[test]
fn the_end_of_the_stream_is_doubt_at_once_and_evidence_after_the_grace() {
    let mut w = world();
    let stream = open(&mut w);
    let (lease, other) = (w.ask(kept(stream)), w.ask(want("hosts")));
    w.all_works();
    beats(&mut w, stream, 3);
    w.step(Input::StreamEnded(stream)).unwrap();
    let at = w.now;
    assert_eq!((w.row(lease).holder_doubt, w.row(other).holder_doubt), (Some(at), None));
    assert_eq!(w.last.leases.iter().map(|row| row.id).collect::<Vec<_>>(), [lease], "watchers hear of it");
    let text = "its stream ended, and 1 leases are in doubt (agent 7): it ends in 8 s unless it is resumed";
    assert_eq!(entries(&w), [(EventKind::SessionDoubt, text)]);
    assert_eq!(w.state(lease), "ACTIVE", "doubt ends nothing");
    w.step(Input::StreamEnded(stream)).unwrap();
    assert!(w.last.is_empty(), "a stream ends once");
    w.pass(Millis(GRACE.0 - 1));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis(1));
    assert_eq!((w.state(lease), w.state(other), row(&w, stream)), ("EXPIRED", "ACTIVE", None));
    assert_eq!(w.row(lease).holder_doubt, None);
    let text = "its stream ended, and none resumed it for 8 s, with 1 leases (agent 7)";
    assert_eq!(entries(&w), [(EventKind::SessionLost, text)]);
}

#[test]
fn a_session_that_keeps_nothing_ends_with_its_stream() {
    let mut w = world();
    let stream = open(&mut w);
    let lease = w.ask(kept(stream));
    w.all_works();
    w.release(lease, Outcome::Ok);
    w.step(Input::StreamEnded(stream)).unwrap();
    assert_eq!(row(&w, stream), None);
    assert_eq!(entries(&w), [(EventKind::SessionClosed, "0 leases go on by their own TTL")]);
}

#[test]
fn another_stream_resumes_a_session_with_nothing_lost() {
    let mut w = world();
    let first = open(&mut w);
    let lease = w.ask(kept(first));
    w.all_works();
    w.step(Input::StreamEnded(first)).unwrap();
    w.pass(Millis(GRACE.0 - 1));
    let second = resume(&mut w, first);
    assert_eq!((second.session, second.number), (first.session, first.number + 1));
    assert_eq!((w.row(lease).holder_doubt, row(&w, second).unwrap().doubt), (None, None));
    assert_eq!(entries(&w)[0].0, EventKind::SessionResumed);
    beats(&mut w, second, 60);
    assert_eq!(w.state(lease), "ACTIVE");
    // The stream before it beats, ends and leases no more.
    assert_eq!(w.step(Input::Beat(first)).unwrap_err().reason, "SESSION_RESUMED");
    w.step(Input::StreamEnded(first)).unwrap();
    assert_eq!(w.row(lease).holder_doubt, None);
    assert_eq!(w.try_ask(kept(first)).unwrap_err().reason, "SESSION_RESUMED");
    assert_eq!(keep(&mut w, lease, first).unwrap_err().reason, "SESSION_RESUMED");
}

#[test]
fn a_session_of_another_principal_is_one_that_never_was() {
    let mut w = world();
    let stream = open(&mut w);
    w.ask(kept(stream));
    w.step(Input::StreamEnded(stream)).unwrap();
    let by = |tenant: &str, name: &str| Caller { tenant: Arc::from(tenant), ..Caller::sole_tenant(name) };
    let mut resumed = |session, caller| w.step(Input::ResumeSession { session, caller }).unwrap_err();
    let unknown = wharfinger_core::SessionId::new(99);
    let never = resumed(unknown, ann());
    assert_eq!((never.kind, never.reason), (RejectionKind::NotFound, "UNKNOWN_SESSION"));
    for stranger in [by("default", "bob"), by("other", "ann")] {
        let refused = resumed(stream.session, stranger);
        let text = refused.message.replace(&stream.session.to_string(), &unknown.to_string());
        assert_eq!(Rejection { message: text, ..refused }, never);
    }
    let bob = by("default", "bob");
    let (second, refused) = (resume(&mut w, stream), "UNKNOWN_SESSION");
    let asked = LeaseRequest { caller: bob.clone(), ..kept(second) };
    assert_eq!(w.try_ask(asked).unwrap_err().reason, refused);
    let close = Input::CloseSession { stream: second, caller: bob.clone() };
    assert_eq!(w.step(close).unwrap_err().reason, refused);
    let lease = w.lease("hosts");
    let keep = Input::KeepAll { leases: vec![lease], caller: bob, stream: second };
    assert_eq!(w.step(keep).unwrap_err().reason, refused);
}

#[test]
fn a_lease_that_became_active_after_the_last_beat_has_its_ttl_from_then() {
    let mut w = World::new(vec![made_at_will("hosts", 1)]);
    let stream = open(&mut w);
    let lease = w.ask(kept(stream));
    beats(&mut w, stream, 3);
    w.pass(Millis(TTL.0 - 1000));
    // The host is there a second before the session is lost.
    w.works(Kind::Provision);
    assert_eq!(w.state(lease), "ACTIVE");
    let since = w.now;
    w.pass(Millis::secs(1));
    assert_eq!(row(&w, stream), None, "it was silent for its TTL");
    assert_eq!((w.state(lease), w.row(lease).expires_at), ("ACTIVE", Some(since.after(TTL))));
    w.pass(Millis(TTL.0 - 1001));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis(1));
    assert_eq!(w.state(lease), "EXPIRED");
}

#[test]
fn leases_in_line_outlive_their_session_and_have_a_ttl_of_their_own_then() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let stream = open(&mut w);
    let (first, waits) = (w.lease("hosts"), w.ask(kept(stream)));
    w.all_works();
    w.pass(TTL);
    assert_eq!((row(&w, stream), w.state(waits)), (None, "QUEUED"));
    w.renew(first).unwrap();
    w.release(first, Outcome::Ok);
    assert_eq!((w.state(waits), w.row(waits).expires_at), ("ACTIVE", Some(w.now.after(TTL))));
}

#[test]
fn a_request_repeated_after_a_resume_returns_the_same_leases() {
    let mut w = world();
    let first = open(&mut w);
    let request = LeaseRequest { request_id: Arc::from("build-1"), ..kept(first) };
    let Reply::Leases(asked) = w.step(Input::Lease(request.clone())).unwrap() else { panic!() };
    let second = resume(&mut w, first);
    let again = LeaseRequest { session: Some(second), ..request.clone() };
    let Reply::Leases(found) = w.step(Input::Lease(again)).unwrap() else { panic!() };
    assert_eq!(found[0].id, asked[0].id);
    // Without a session it is the same request too, and a session of its own takes it over.
    let bare = LeaseRequest { session: None, ..request.clone() };
    let Reply::Leases(found) = w.step(Input::Lease(bare)).unwrap() else { panic!() };
    assert_eq!((found[0].id, found[0].session), (asked[0].id, Some(second.session)));
    let other = open(&mut w);
    let again = LeaseRequest { session: Some(other), ..request };
    let Reply::Leases(found) = w.step(Input::Lease(again)).unwrap() else { panic!() };
    assert_eq!((found[0].id, found[0].session), (asked[0].id, Some(other.session)));
    assert_eq!(w.core.leases_of_session(second.session), []);
}

#[test]
fn a_lease_goes_into_a_session_by_its_renewal_there_and_out_of_it_by_a_renewal_of_its_own() {
    let mut w = world();
    let lease = w.lease("hosts");
    w.all_works();
    let stream = open(&mut w);
    keep(&mut w, lease, stream).unwrap();
    assert_eq!((w.row(lease).session, w.row(lease).expires_at), (Some(stream.session), None));
    let revision = w.core.revision();
    keep(&mut w, lease, stream).unwrap();
    assert_eq!(w.core.revision(), revision, "a second time changes nothing");
    beats(&mut w, stream, 100);
    assert_eq!(w.state(lease), "ACTIVE");
    w.renew(lease).unwrap();
    assert_eq!((w.row(lease).session, w.row(lease).expires_at), (None, Some(w.now.after(Millis::secs(60)))));
    w.pass(TTL);
    assert_eq!((row(&w, stream), w.state(lease)), (None, "ACTIVE"), "the session is lost without it");
    assert_eq!(keep(&mut w, lease, stream).unwrap_err().reason, "UNKNOWN_SESSION");
}

#[test]
fn the_leases_of_a_closed_session_go_on_by_their_own_ttl() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let stream = open(&mut w);
    let leases = [w.ask(kept(stream)), w.ask(kept(stream))];
    w.all_works();
    w.step(Input::CloseSession { stream, caller: ann() }).unwrap();
    assert_eq!(entries(&w), [(EventKind::SessionClosed, "2 leases go on by their own TTL")]);
    assert_eq!((row(&w, stream), w.states(&leases)), (None, vec!["ACTIVE", "QUEUED"]));
    assert_eq!(
        w.row(leases[0]).expires_at,
        Some(w.now.after(TTL)),
        "that of the session, as they were asked for by it"
    );
    w.pass(TTL);
    w.all_works();
    assert_eq!(w.states(&leases), ["EXPIRED", "ACTIVE"]);
}

#[test]
fn a_group_goes_into_a_session_and_out_of_it_as_one() {
    let mut w = world();
    let group = LeaseRequest { claims: vec![Claim::of(Selector::pool("hosts"), 2)], ..want("hosts") };
    let leases = w.ask_all(group);
    w.all_works();
    let stream = open(&mut w);
    keep(&mut w, leases[0], stream).unwrap();
    assert_eq!(w.core.leases_of_session(stream.session), leases);
    w.renew(leases[1]).unwrap();
    assert_eq!(w.core.leases_of_session(stream.session), []);
}

#[test]
fn successors_of_broken_leases_are_kept_by_the_same_session() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let stream = open(&mut w);
    let lease = w.ask(LeaseRequest { replace: true, ..kept(stream) });
    w.all_works();
    let host = w.on(lease);
    w.notice(host, NoticeKind::Gone);
    let LeaseState::Ended { how: Ended::Broken { replacement: Some(next), .. }, .. } = w.row(lease).state else {
        panic!("{:?}", w.row(lease))
    };
    w.all_works();
    assert_eq!((w.row(next).session, w.state(next)), (Some(stream.session), "ACTIVE"));
    assert_eq!(w.core.leases_of_session(stream.session), [next]);
    beats(&mut w, stream, 100);
    assert_eq!(w.state(next), "ACTIVE");
}

#[test]
fn a_lease_that_goes_back_to_the_queue_stays_in_its_session() {
    let traits = wharfinger_core::Traits { prepares: true, cleans: false, repairs: false, probes: false };
    let mut w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1", "h2"]) }]);
    let stream = open(&mut w);
    let lease = w.ask(kept(stream));
    w.works(Kind::Provision);
    let call = w.take(Kind::Prepare);
    w.answer(&call, Some(failure(Blame::Resource)));
    assert_eq!(w.core.leases_of_session(stream.session), [lease]);
    beats(&mut w, stream, 40);
    w.all_works();
    assert_eq!((w.state(lease), w.row(lease).expires_at), ("ACTIVE", None));
}

#[test]
fn the_longest_life_of_a_lease_ends_it_within_a_session() {
    let mut w = world();
    let stream = open(&mut w);
    let lease = w.ask(LeaseRequest { total: Some(Millis::secs(50)), ..kept(stream) });
    w.all_works();
    assert_eq!(w.row(lease).expires_at, Some(w.now.after(Millis::secs(50))));
    beats(&mut w, stream, 49);
    assert_eq!(w.state(lease), "ACTIVE");
    beats(&mut w, stream, 1);
    assert_eq!((w.state(lease), row(&w, stream).is_some()), ("EXPIRED", true));
    assert_eq!(keep(&mut w, lease, stream).unwrap_err().reason, "LEASE_ENDED");
}

/// Nothing was heard by a broker that was not there: the clock of each session starts anew with it.
#[test]
fn a_restart_starts_the_clock_of_each_session_anew() {
    let mut w = world();
    let (stream, doubted) = (open(&mut w), open(&mut w));
    let leases = [w.ask(kept(stream)), w.ask(kept(doubted))];
    w.all_works();
    w.step(Input::StreamEnded(doubted)).unwrap();
    w.pass(Millis(GRACE.0 - 1000));
    w.now = w.now.after(Millis::secs(600));
    w.restart();
    let back = w.now;
    assert_eq!(w.states(&leases), ["ACTIVE", "ACTIVE"]);
    assert!(w.row(leases[1]).holder_doubt.is_some(), "what is stored stays known");
    // No lease ends within the grace of a restart.
    let grace = Limits::default().grace;
    assert!(grace > TTL && grace > GRACE);
    w.pass(Millis(grace.0 - 1));
    assert_eq!(w.states(&leases), ["ACTIVE", "ACTIVE"]);
    // A stream of before the restart of the core is still the latest one.
    w.step(Input::Beat(stream)).unwrap();
    w.pass(Millis(1));
    assert_eq!(w.now, back.after(grace));
    assert_eq!(w.states(&leases), ["ACTIVE", "EXPIRED"]);
    let resumed = resume(&mut w, stream);
    beats(&mut w, resumed, 60);
    assert_eq!(w.state(leases[0]), "ACTIVE");
}

#[test]
fn a_pause_of_the_broker_ends_no_session() {
    let mut w = world();
    let stream = open(&mut w);
    let lease = w.ask(kept(stream));
    w.all_works();
    w.freeze(Millis::secs(3600));
    assert_eq!((w.state(lease), row(&w, stream).is_some()), ("ACTIVE", true));
    w.step(Input::Beat(stream)).unwrap();
    beats(&mut w, stream, 60);
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_follower_has_the_same_sessions_and_leads_on_with_them() {
    let mut w = world();
    let pools = w.pools.clone();
    let mut follower = Core::follow(Snapshot::default(), pools.clone(), Limits::default(), START);
    // Up to the state before the first batch of the story.
    let caught_up = |core: &mut Core, w: &World| {
        core.take_in(&w.last);
        assert_eq!(core.check_invariants(), Ok(()));
        assert!(core.sessions().eq(w.core.sessions()), "{:?}", core.sessions().collect::<Vec<_>>());
        for session in w.core.sessions() {
            assert_eq!(core.leases_of_session(session.id), w.core.leases_of_session(session.id));
        }
    };
    caught_up(&mut follower, &w);
    let stream = open(&mut w);
    caught_up(&mut follower, &w);
    let lease = w.ask(kept(stream));
    caught_up(&mut follower, &w);
    let (other, now) = (open(&mut w), w.now);
    caught_up(&mut follower, &w);
    w.step(Input::CloseSession { stream: other, caller: ann() }).unwrap();
    caught_up(&mut follower, &w);
    w.step(Input::StreamEnded(stream)).unwrap();
    caught_up(&mut follower, &w);
    let mut leader = Core::recover(follower.snapshot(), pools, Limits::default(), now);
    let resumed = session(leader.step(now, Input::ResumeSession { session: stream.session, caller: ann() }));
    assert_eq!(resumed.number, stream.number + 1);
    assert_eq!((leader.leases_of_session(stream.session), leader.check_invariants()), (vec![lease], Ok(())));
}

#[test]
fn a_request_for_a_session_beyond_the_limits_is_refused() {
    let mut w = world();
    let refused = |w: &mut World, request| w.step(Input::OpenSession(request)).unwrap_err();
    let (zero, day) = (Some(Millis::ZERO), Some(Millis::secs(86_400)));
    for (request, reason, field) in [
        (SessionRequest { ttl: zero, ..request() }, "TTL_NOT_POSITIVE", "open.ttl"),
        (SessionRequest { ttl: day, ..request() }, "TTL_TOO_LONG", "open.ttl"),
        (SessionRequest { grace: zero, ..request() }, "GRACE_OUT_OF_RANGE", "open.grace"),
        (SessionRequest { grace: day, ..request() }, "GRACE_OUT_OF_RANGE", "open.grace"),
    ] {
        let refusal = refused(&mut w, request);
        assert_eq!((refusal.reason, &*refusal.field), (reason, field));
    }
    let limits = Limits { sessions: 2, ..Limits::default() };
    let mut core = Core::recover(Snapshot::default(), w.pools.clone(), limits, START);
    let mut now = START;
    let mut ask = |core: &mut Core, name: &str| {
        let opened =
            core.step(now, Input::OpenSession(SessionRequest { caller: Caller::sole_tenant(name), ..request() }));
        now = Timestamp(now.0 + 1);
        opened
    };
    let first = session(ask(&mut core, "ann"));
    session(ask(&mut core, "ann"));
    let refusal = ask(&mut core, "ann").unwrap_err();
    assert_eq!((refusal.kind, refusal.reason), (RejectionKind::Exhausted, "TOO_MANY_SESSIONS"));
    session(ask(&mut core, "bob"));
    core.step(START, Input::CloseSession { stream: first, caller: ann() }).unwrap();
    session(ask(&mut core, "ann"));
    assert_eq!(core.check_invariants(), Ok(()));
}

#[test]
fn a_session_longer_than_the_longest_ttl_of_a_pool_has_no_lease_there() {
    let short = PoolConfig { max_ttl: Millis::secs(10), default_ttl: Millis::secs(5), ..inventory("short", &["s1"]) };
    let mut w = World::new(vec![short]);
    let stream = open(&mut w);
    let asked = LeaseRequest { session: Some(stream), ..want("short") };
    assert_eq!(w.try_ask(asked).unwrap_err().reason, "TTL_TOO_LONG");
    let lease = w.lease("short");
    w.all_works();
    assert_eq!(keep(&mut w, lease, stream).unwrap_err().reason, "TTL_TOO_LONG");
}
