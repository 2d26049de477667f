//! Group Clock: what is due happens, whatever any clock once showed (invariant 19).

use crate::world::{Kind, START, World, inventory, lease_on_copy, want};
use core::time::Duration;
use std::sync::Arc;
use wharfinger_core::{
    AdminVerb, Blame, CallFailure, HybridClock, Input, LeaseId, LeaseRequest, Millis, Notice, NoticeKind, NoticeTarget,
    Outcome, PoolConfig, Reading, Timestamp, Traits,
};

const HOUR: Millis = Millis::secs(3600);
const YEAR: Millis = Millis::secs(365 * 86_400);

/// A broker with the two clocks of its machine.
struct Machine {
    w: World,
    clock: HybridClock,
    wall: Timestamp,
    steady: Duration,
}

fn duration(time: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(time.0).unwrap())
}

impl Machine {
    /// Two probed hosts.
    fn new() -> Self {
        let traits = Traits { prepares: false, cleans: false, repairs: false, probes: true };
        let w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1", "h2"]) }]);
        let clock = HybridClock::new(duration(START), Duration::ZERO);
        Machine { w, clock, wall: START, steady: Duration::ZERO }
    }

    fn reading(&mut self) -> Reading {
        self.clock.read(duration(self.wall), self.steady)
    }

    fn step(&mut self) {
        self.w.now = self.reading().now;
        self.w.step(Input::Tick).unwrap();
    }

    /// The process ends and another one starts at once.
    fn restarts(&mut self) {
        self.w.now = self.wall;
        self.w.restart();
        self.clock.start(self.w.core.now(), duration(self.wall), self.steady);
        self.w.now = self.reading().now;
    }

    /// Real time passes in steps of a second; both clocks show it.
    fn passes(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wall = self.wall.after(Millis::secs(1));
            self.steady += Duration::from_secs(1);
            self.step();
        }
    }

    fn lease(&mut self) -> LeaseId {
        self.w.now = self.reading().now;
        let lease = self.w.lease("hosts");
        self.w.all_works();
        assert_eq!(self.w.state(lease), "ACTIVE");
        lease
    }
}

#[test]
fn a_clock_that_was_ahead_once_stops_nothing_after_a_restart() {
    for ahead in [HOUR, Millis(2 * HOUR.0), YEAR, Millis(100 * YEAR.0)] {
        let mut m = Machine::new();
        m.wall = START.after(ahead);
        m.restarts();
        let silent = m.lease();
        let renewed = m.lease();
        m.w.calls.clear();
        // The clock is set right, and another process starts.
        m.wall = START;
        m.restarts();
        for _ in 0..6 {
            m.passes(10);
            m.w.renew(renewed).unwrap();
        }
        assert!(m.w.waits_for(Kind::Probe) > 0, "hosts are probed, {ahead} ahead");
        m.passes(20);
        assert_eq!(m.w.states(&[silent, renewed]), ["EXPIRED", "ACTIVE"], "{ahead} ahead");
    }
}

#[test]
fn a_clock_that_is_set_back_while_the_broker_runs_stops_nothing() {
    let mut m = Machine::new();
    m.wall = START.after(Millis(2 * HOUR.0));
    m.restarts();
    let lease = m.lease();
    m.wall = START;
    m.passes(50);
    assert_eq!(m.w.state(lease), "ACTIVE", "not before its time");
    m.passes(20);
    assert_eq!(m.w.state(lease), "EXPIRED");
}

#[test]
fn a_clock_that_is_set_ahead_while_the_broker_runs_expires_no_lease() {
    let mut m = Machine::new();
    let lease = m.lease();
    m.passes(10);
    m.wall = m.wall.after(Millis(2 * HOUR.0));
    m.passes(30);
    assert_eq!(m.w.state(lease), "ACTIVE");
    m.w.renew(lease).unwrap();
    m.passes(50);
    assert_eq!(m.w.state(lease), "ACTIVE");
    m.passes(10);
    assert_eq!(m.w.state(lease), "EXPIRED", "who does not renew still expires");
}

#[test]
fn a_retry_comes_after_its_wait() {
    let mut m = Machine::new();
    m.wall = START.after(YEAR);
    m.restarts();
    let lease = m.w.lease("hosts");
    let call = m.w.take(Kind::Provision);
    let later = Some(Millis::secs(20));
    let failure = CallFailure { retry_after: later, ..crate::world::failure(Blame::Provider) };
    m.w.answer(&call, Some(failure));
    m.wall = START;
    m.restarts();
    m.w.calls.clear();
    m.passes(90);
    assert!(m.w.waits_for(Kind::Provision) > 0, "{:?}", m.w.row(lease).state);
}

/// An end that the provider announces for a wall time comes at that wall time, though the core's time is far ahead of it.
#[test]
fn an_announced_end_comes_at_its_wall_time() {
    let mut m = Machine::new();
    m.wall = START.after(Millis(2 * HOUR.0));
    m.restarts();
    let lease = m.lease();
    m.wall = START;
    m.restarts();
    let end = m.wall.after(Millis::secs(120));
    let reading = m.reading();
    let (pool, source, detail) = (Arc::from("hosts"), Arc::from("aws"), Arc::from("-"));
    let target = NoticeTarget::Resource(m.w.on(lease));
    let kind = NoticeKind::Interruption(reading.from_wall(end));
    m.w.step(Input::Notice(Notice { pool, target, kind, source, detail })).unwrap();
    let ends_at = m.w.row(lease).ends_at.unwrap();
    assert!((reading.to_wall(ends_at).0 - end.0).abs() <= 2, "and is shown as that time");
    for _ in 0..118 {
        m.w.renew(lease).unwrap();
        m.passes(1);
    }
    assert_eq!(m.w.state(lease), "ACTIVE");
    m.passes(3);
    assert_eq!(m.w.state(lease), "BROKEN");
}

/// The holder of an ended lease may repeat its request after a take-over by a server whose clock is ahead by more than the
/// retention. It gets the ended lease, as it would have got from the former leader, and no second one.
#[test]
fn a_request_that_ended_is_known_after_a_take_over_by_a_clock_that_is_ahead() {
    let request = LeaseRequest { request_id: Arc::from("build-7"), ..want("hosts") };
    for ahead in [Millis(2 * HOUR.0), YEAR] {
        let mut m = Machine::new();
        let lease = m.w.ask(request.clone());
        m.w.all_works();
        m.w.release(lease, Outcome::Ok);
        m.wall = m.wall.after(ahead);
        m.restarts();
        assert_eq!(m.w.ask(request.clone()), lease, "{ahead} ahead");
        m.passes(3500);
        assert_eq!(m.w.ask(request.clone()), lease, "{ahead} ahead: the retention is an hour of service");
        m.passes(200);
        assert!(m.w.core.lease(lease).is_none(), "{ahead} ahead: forgotten in the end");
    }
}

/// The same after a broker that stood still for longer than the retention.
#[test]
fn a_request_that_ended_is_known_after_a_pause() {
    let request = LeaseRequest { request_id: Arc::from("build-7"), ..want("hosts") };
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.ask(request.clone());
    w.all_works();
    w.release(lease, Outcome::Ok);
    w.freeze(Millis(2 * HOUR.0));
    assert_eq!(w.ask(request.clone()), lease);
    assert!(w.core.next_deadline().is_some_and(|at| at > w.now), "nothing is due that does not happen");
    w.pass(HOUR);
    assert!(w.core.lease(lease).is_none(), "forgotten in the end");
}

/// A clock that leaps past the retention has a host forgotten while the removal of a copy on it is still under way. No
/// adapter can be asked without the host, so a restart ends the copy's record.
#[test]
fn a_copy_whose_host_is_forgotten_is_gone_after_a_restart() {
    let (mut w, _, copy, host) = lease_on_copy(1);
    w.admin(AdminVerb::ForceDestroy(copy)).unwrap();
    assert_eq!((w.stands(copy), w.waits_for(Kind::Destroy)), ("ORPHANED", 1));
    // Its answer never comes.
    w.take(Kind::Destroy);
    w.notice(host, NoticeKind::Gone);
    w.all_works();
    w.freeze(YEAR);
    w.step(Input::Tick).unwrap();
    assert!(w.core.resource(host).is_none(), "forgotten after {YEAR}");
    assert_eq!(w.stands(copy), "ORPHANED");
    w.restart();
    assert_eq!(w.stands(copy), "GONE");
}
