//! Leases, resources and pools in every state, with odd contents, from a seed.

use std::sync::Arc;
use wharfinger_core::{
    Assignment, AtRisk, CauseChain, Cleanup, Cordon, Ended, Event, EventKind, Evidence, FailReason, Fault, Finding,
    GroupId, Hold, Lease, LeaseId, LeaseSpec, LeaseState, Link, Losses, Machine, MachineKey, Millis, Note, Op, Order,
    Outcome, Parent, PoolRow, Pools, Program, Provenance, Reason, Record, Resource, ResourceId, ResourceState,
    Revision, Run, Selector, Session, SessionId, Source, Subject, Texts, Timestamp, Uses, Weight, WorkFailure,
};

/// Number of states of [`Samples::lease`].
pub(super) const LEASE_STATES: u64 = 14;
/// Number of states of [`Samples::resource`].
pub(super) const RESOURCE_STATES: u64 = 9;

const WORDS: [&str; 9] = [
    "",
    "plain",
    "with \"quotes\" and \\ and 'these'",
    "line\nbreak\ttab\u{1f}",
    "nul\0inside",
    "Grüße, 世界 🛶",
    "operator:a:b",
    "{\"json\": [1, null]}",
    "https://ci.example.org/job/17?a=b&c=d",
];

/// Makes rows from a seed; the same seed makes the same rows.
pub(super) struct Samples(u64);

impl Samples {
    pub(super) fn new(seed: u64) -> Self {
        Samples(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag() { Some(make(self)) } else { None }
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    fn word(&mut self) -> Arc<str> {
        Arc::from(self.pick(&WORDS))
    }

    fn selector(&mut self) -> Arc<Selector> {
        let (pool, labels) = (self.maybe(Self::word), self.texts());
        let among = match pool {
            None if self.flag() => Pools::matching(self.pick(&[["linux-*", "copies"], ["mac", "mac"]])),
            Some(_) | None => Pools::All,
        };
        Arc::new(Selector { pool, labels, among })
    }

    fn texts(&mut self) -> Texts {
        (0..self.below(4)).map(|_| (self.word(), self.word())).collect()
    }

    fn time(&mut self) -> Timestamp {
        let odd = [i64::MIN, -1, 0, 1_764_000_000_000, i64::MAX];
        Timestamp(self.pick(&odd))
    }

    fn number(&mut self) -> u64 {
        let odd = [0, 1, u64::MAX, 1 << 63, 42];
        self.pick(&odd)
    }

    fn small(&mut self) -> u32 {
        self.pick(&[0, 1, 7, u32::MAX])
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn resource_id(&mut self) -> ResourceId {
        ResourceId::new(self.wide())
    }

    fn lease_id(&mut self) -> LeaseId {
        LeaseId::new(self.wide())
    }

    fn session_id(&mut self) -> SessionId {
        SessionId::new(self.wide())
    }

    fn cause(&mut self) -> CauseChain {
        (0..=self.below(4))
            .map(|_| Link {
                subject: match self.below(4) {
                    0 => Subject::Pool(self.word()),
                    1 => Subject::Resource(self.resource_id()),
                    2 => Subject::Session(self.session_id()),
                    _ => Subject::Lease(self.lease_id()),
                },
                reason: self.pick(&Reason::ALL),
                detail: self.word(),
                source: match self.below(6) {
                    0 => Source::Broker,
                    1 => Source::Check,
                    2 => Source::Adapter,
                    3 => Source::Holder,
                    4 => Source::Operator(self.word()),
                    _ => Source::Notice(self.word()),
                },
                at: self.time(),
            })
            .collect()
    }

    fn cordon(&mut self) -> Cordon {
        Cordon { by: self.word(), reason: self.word() }
    }

    fn assignment(&mut self) -> Assignment {
        Assignment { resource: self.resource_id(), slot: self.small(), token: self.number() }
    }

    fn op(&mut self) -> Op {
        Op(self.number())
    }

    fn ended(&mut self, how: Ended) -> LeaseState {
        let cleanup = self.maybe(|s| Cleanup { assignment: s.assignment(), op: s.op() });
        LeaseState::Ended { how, at: self.time(), cleanup }
    }

    /// A lease in one of [`LEASE_STATES`].
    pub(super) fn lease(&mut self, state: u64, revision: u64) -> Lease {
        let failed = |s: &mut Self, reason| Ended::Failed { reason, code: s.word(), detail: s.word() };
        let released = |s: &mut Self, outcome| Ended::Released {
            outcome,
            note: s.word(),
            finding: s.maybe(|s| {
                let fault = s.pick(&Fault::ALL);
                Arc::new(Finding { fault, detail: s.word() })
            }),
        };
        let state = match state {
            0 => LeaseState::Queued,
            1 => LeaseState::Preparing { assignment: self.assignment(), op: self.op() },
            2 => {
                LeaseState::Active { assignment: self.assignment(), since: self.time(), access: Arc::new(self.texts()) }
            }
            3 => self.ended(Ended::Expired),
            4 => self.ended(Ended::Cancelled),
            5 => {
                let how = Ended::Broken { cause: self.cause(), replacement: self.maybe(Self::lease_id) };
                self.ended(how)
            }
            n @ 6..=9 => {
                let outcome = Outcome::ALL[n as usize - 6];
                let how = released(self, outcome);
                self.ended(how)
            }
            n => {
                let reasons =
                    [FailReason::WaitDeadline, FailReason::Request, FailReason::BudgetSpent, FailReason::Group];
                let how = failed(self, reasons[n as usize - 10]);
                self.ended(how)
            }
        };
        Lease {
            id: self.lease_id(),
            revision: Revision(revision),
            spec: Arc::new(LeaseSpec {
                request_id: self.word(),
                fingerprint: self.number(),
                tenant: self.word(),
                principal: self.word(),
                holder: self.word(),
                selector: self.selector(),
                priority: self.pick(&[i32::MIN, -1, 0, 5, i32::MAX]),
                ttl: Millis(self.time().0),
                wait_until: self.maybe(Self::time),
                expected: self.maybe(|s| Millis(s.time().0)),
                params: Arc::new(self.texts()),
                tags: Arc::new(self.texts()),
                group: self.maybe(|s| GroupId::new(s.wide())),
                index: self.small(),
                independent: self.flag(),
                child: self.maybe(Self::resource_id),
                replace: self.flag(),
                replaces: self.maybe(Self::lease_id),
                work: self.maybe(Self::word),
                total: self.maybe(|s| Millis(s.time().0)),
            }),
            state,
            created_at: self.time(),
            seq: self.number(),
            expires_at: self.maybe(Self::time),
            expires_at_most: self.maybe(Self::time),
            attempts: self.small(),
            delays: self.small(),
            not_before: self.maybe(Self::time),
            pool: self.maybe(Self::word),
            avoid: (0..self.below(4)).map(|_| self.resource_id()).collect(),
            trouble: self.maybe(Self::word),
            ends_at: self.maybe(Self::time),
            doubt: self.maybe(Self::word),
            session: self.maybe(Self::session_id),
            holder_doubt: self.maybe(Self::time),
        }
    }

    /// A session.
    pub(super) fn session(&mut self, revision: u64) -> Session {
        Session {
            id: self.session_id(),
            revision: Revision(revision),
            tenant: self.word(),
            principal: self.word(),
            holder: self.word(),
            ttl: Millis(self.time().0),
            grace: Millis(self.time().0),
            opened_at: self.time(),
            stream: self.number(),
            doubt: self.maybe(Self::time),
        }
    }

    /// A resource in one of [`RESOURCE_STATES`].
    pub(super) fn resource(&mut self, state: u64, revision: u64) -> Resource {
        let state = match state {
            0 => ResourceState::Provisioning {
                op: self.maybe(Self::op),
                attempt: self.small(),
                retry_at: self.maybe(Self::time),
            },
            1 => ResourceState::Ready,
            2 => ResourceState::Suspect {
                since: self.time(),
                cause: self.cause(),
                op: self.maybe(Self::op),
                retry_at: self.maybe(Self::time),
                misses: self.small(),
                first_miss: self.maybe(Self::time),
                repairs: self.small(),
                held: self.maybe(Self::word),
            },
            3 => ResourceState::Repairing { op: self.op(), cause: self.cause(), repairs: self.small() },
            4 => {
                ResourceState::Quarantined { cordon: self.cordon(), since: self.time(), until: self.maybe(Self::time) }
            }
            5 => ResourceState::Draining { cause: self.cause(), deadline: self.maybe(Self::time) },
            6 => ResourceState::Destroying {
                op: self.maybe(Self::op),
                attempt: self.small(),
                retry_at: self.maybe(Self::time),
                cause: self.cause(),
                dead: self.flag(),
            },
            7 => ResourceState::Orphaned {
                op: self.maybe(Self::op),
                attempt: self.small(),
                retry_at: self.maybe(Self::time),
                cause: self.cause(),
            },
            _ => ResourceState::Gone { at: self.time(), cause: self.cause() },
        };
        Resource {
            id: self.resource_id(),
            revision: Revision(revision),
            pool: self.word(),
            item: self.maybe(Self::word),
            labels: self.texts(),
            slots: self.small(),
            parent: self.maybe(|s| Parent { lease: s.lease_id(), host: s.maybe(Self::resource_id) }),
            state,
            cordoned: self.maybe(Self::cordon),
            created_at: self.time(),
            ready_at: self.maybe(Self::time),
            idle_since: self.maybe(Self::time),
            uses: self.small(),
            handle: self.maybe(Self::word),
            access: Arc::new(self.texts()),
            ends_at: self.maybe(Self::time),
            trouble: self.maybe(Self::word),
            found: self.texts(),
            at_risk: self.maybe(|s| AtRisk { source: s.word(), detail: s.word() }),
            hold: self.maybe(|s| Hold { by: s.word(), reason: s.word(), until: s.maybe(Self::time) }),
            announced: (0..self.below(3)).map(|_| (self.word(), self.time())).collect(),
            failures: (0..self.below(3))
                .map(|_| WorkFailure {
                    work: self.word(),
                    lease: self.lease_id(),
                    at: self.time(),
                    cleared: self.flag(),
                    weight: Weight::ALL[self.below(4) as usize],
                })
                .collect(),
            evidence: self.evidence(),
            last_tenant: self.maybe(Self::word),
            held_for: self.maybe(Self::word),
            note: self.maybe(Self::note),
        }
    }

    /// The orders of an operator on a machine.
    pub(super) fn machine(&mut self, item: &str, revision: u64) -> Machine {
        let mut machine = Machine::new(MachineKey { pool: Arc::from("linux"), item: Arc::from(item) });
        machine.revision = Revision(revision);
        machine.cordoned = self.maybe(Self::order);
        machine.drained = self.maybe(Self::order);
        machine.held = self.maybe(Self::order);
        machine.losses = self.maybe(Self::losses);
        machine.note = self.maybe(Self::note);
        machine
    }

    fn note(&mut self) -> Note {
        Note { by: self.word(), text: self.word(), at: self.time() }
    }

    fn order(&mut self) -> Order {
        Order { by: self.word(), reason: self.word(), at: self.time(), until: self.maybe(Self::time) }
    }

    /// The settings of an operator for a pool.
    pub(super) fn pool(&mut self, name: &str, revision: u64) -> PoolRow {
        let record = Record {
            ever: self.uses(),
            recent: self.uses(),
            halvings: u32::try_from(self.below(3)).unwrap_or_default(),
        };
        PoolRow {
            name: Arc::from(name),
            revision: Revision(revision),
            cordoned: self.maybe(Self::cordon),
            record,
            losses: self.maybe(Self::losses),
        }
    }

    fn losses(&mut self) -> Losses {
        Losses { count: self.small(), since: self.time(), last: self.time(), again_at: self.time(), why: self.word() }
    }

    fn uses(&mut self) -> Uses {
        Uses { good: self.below(3), bad: self.below(3), confirmed: self.below(3) }
    }

    fn run(&mut self) -> Run {
        Run { good: self.below(3), bad: self.below(3), since: self.uses() }
    }

    fn evidence(&mut self) -> Evidence {
        Evidence {
            recent: self.uses(),
            halvings: 1,
            run: self.run(),
            confirmed: self.run(),
            said: self.flag(),
            apart: self.small(),
            trial: self.maybe(Self::small),
            repairs: self.small(),
            unfit: self.small(),
        }
    }
}

/// An entry of the audit trail that names its subject only.
pub(super) fn event(revision: u64, subject: Subject) -> Event {
    Event {
        revision: Revision(revision),
        at: Timestamp(1000 + revision.cast_signed()),
        kind: EventKind::LeaseActive,
        actor: Arc::from("ann"),
        subject,
        pool: None,
        resource: None,
        lease: None,
        detail: Arc::from(format!("entry of {revision}")),
        caller: (!revision.is_multiple_of(2)).then(|| {
            Arc::new(Provenance {
                tenant: Arc::from("web"),
                proof: Arc::from("token:ci-7"),
                peer: Some(Arc::from("10.0.0.9:4711")),
                via: revision.is_multiple_of(3).then(|| Arc::from("10.0.0.1:5")),
                program: revision.is_multiple_of(7).then_some(Program::Page),
                roles: Arc::from("agent"),
                method: Arc::from("Lease"),
                trace: revision
                    .is_multiple_of(5)
                    .then(|| Arc::from("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
            })
        }),
    }
}
