//! A small world around the core: a clock, a store, and the calls that adapters have not answered yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger_core::{
    AdminRequest, AdminVerb, Batch, Blame, Brake, CallFailure, Caller, CauseChain, Claim, Configuration, Core,
    DoubtPolicy, Effect, Ended, EventKind, Impact, Input, Isolation, Item, Labels, Lease, LeaseId, LeaseRequest,
    LeaseState, Limits, Machine, MachineKey, MachineName, MachineVerb, Made, Millis, Notice, NoticeKind, NoticeTarget,
    Op, Outcome, PoolConfig, PoolRow, Prepared, Rejection, Reply, Resource, ResourceId, ResourceState, Revision, Scope,
    Selector, Session, SessionId, Snapshot, Stage, Tenant, Tenants, Texts, Timeouts, Timestamp, Traits, Verdict, Work,
};

pub(crate) const START: Timestamp = Timestamp(1_000_000);

/// A pool of machines that are listed one by one.
pub(crate) fn inventory(name: &str, items: &[&str]) -> PoolConfig {
    let items = items.iter().map(|name| Item {
        name: Arc::from(*name),
        labels: Labels::new(),
        slots: None,
        enabled: true,
        disabled_reason: None,
    });
    let items: Vec<Item> = items.collect();
    PoolConfig { max: items.len() as u32, inventory: Some(items), ..made_at_will(name, 0) }
}

/// A pool whose adapter makes resources as they are wanted.
pub(crate) fn made_at_will(name: &str, max: u32) -> PoolConfig {
    PoolConfig {
        name: Arc::from(name),
        adapter: Arc::from("simulated"),
        labels: Labels::new(),
        enabled: true,
        disabled_reason: None,
        on: Vec::new(),
        inventory: None,
        min_ready: 0,
        max,
        max_per_parent: None,
        slots: 1,
        idle: None,
        max_age: None,
        max_uses: None,
        traits: Traits { prepares: false, cleans: false, repairs: false, probes: false },
        doubt: DoubtPolicy::default(),
        default_ttl: Millis::secs(60),
        max_ttl: Millis::secs(3600),
        attempts: 5,
        timeouts: Timeouts::default(),
        brake: Brake::default(),
        domain: None,
        drain: None,
        max_hold: Millis::secs(86_400),
        isolation: Isolation::None,
        reuse_across_tenants: true,
    }
}

/// Working copies on the hosts of another pool.
pub(crate) fn copies(name: &str, on: &str, max: u32) -> PoolConfig {
    PoolConfig {
        on: vec![Arc::from(on)],
        traits: Traits { prepares: true, cleans: true, repairs: true, probes: false },
        ..made_at_will(name, max)
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

pub(crate) fn failure(blame: Blame) -> CallFailure {
    CallFailure { blame, reason: Arc::from("BAD_DAY"), message: Arc::from("it did not work"), retry_after: None }
}

/// A request for one lease of this pool, by the principal `ann`; change what differs.
pub(crate) fn want(pool: &str) -> LeaseRequest {
    want_by(Selector::pool(pool), 1)
}

pub(crate) fn want_by(selector: Selector, count: u32) -> LeaseRequest {
    LeaseRequest {
        holder: Arc::from("build 7"),
        ..LeaseRequest::new(Caller::sole_tenant("ann"), "", vec![Claim::of(selector, count)])
    }
}

/// A request of an operator who has seen this revision.
pub(crate) fn asked(verb: AdminVerb, if_revision: Option<Revision>) -> AdminRequest {
    AdminRequest { caller: Caller::sole_tenant("op"), reason: Arc::from("because"), verb, if_revision }
}

/// The kind of a call to an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Provision,
    Prepare,
    Clean,
    Check,
    Probe,
    Repair,
    Destroy,
}

fn kind(effect: &Effect) -> Kind {
    match effect.work {
        Work::Provision(_) => Kind::Provision,
        Work::Prepare(_) => Kind::Prepare,
        Work::Clean(_) => Kind::Clean,
        Work::Check => Kind::Check,
        Work::Probe => Kind::Probe,
        Work::Repair => Kind::Repair,
        Work::Destroy => Kind::Destroy,
    }
}

/// The slots of a resource that exists.
fn slots_of(row: &Arc<Resource>) -> u32 {
    if matches!(row.state, ResourceState::Gone { .. }) { 0 } else { row.slots }
}

pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Timestamp,
    pub(crate) pools: Vec<PoolConfig>,
    tenants: Arc<Tenants>,
    /// Calls that left and were not answered.
    pub(crate) calls: Vec<Effect>,
    /// The batch of the last step.
    pub(crate) last: Batch,
    store: Stored,
    requests: u32,
}

#[derive(Clone, Default)]
struct Stored {
    revision: Revision,
    floor: Revision,
    now: Timestamp,
    leases: BTreeMap<LeaseId, Arc<Lease>>,
    resources: BTreeMap<ResourceId, Arc<Resource>>,
    pools: BTreeMap<Arc<str>, Arc<PoolRow>>,
    machines: BTreeMap<MachineKey, Arc<Machine>>,
    sessions: BTreeMap<SessionId, Arc<Session>>,
}

impl World {
    pub(crate) fn new(pools: Vec<PoolConfig>) -> Self {
        let core = Core::recover(Snapshot::default(), pools.clone(), Limits::default(), START);
        let mut world = Self {
            core,
            now: START,
            pools,
            tenants: Arc::default(),
            calls: Vec::new(),
            last: Batch::default(),
            store: Stored::default(),
            requests: 0,
        };
        world.commit();
        world
    }

    /// One input, one commit.
    pub(crate) fn step(&mut self, input: Input) -> Result<Reply, Rejection> {
        let reply = self.core.step(self.now, input);
        self.commit();
        reply
    }

    fn commit(&mut self) {
        let batch = self.core.take_batch();
        assert_eq!(batch.base, self.store.revision, "a batch builds on what is stored");
        let store = &mut self.store;
        store.revision = batch.revision;
        store.floor = batch.floor;
        store.now = batch.now;
        store.leases.extend(batch.leases.iter().map(|row| (row.id, row.clone())));
        store.resources.extend(batch.resources.iter().map(|row| (row.id, row.clone())));
        store.pools.extend(batch.pools.iter().map(|row| (row.name.clone(), row.clone())));
        store.machines.extend(batch.machines.iter().map(|row| (row.key.clone(), row.clone())));
        store.sessions.extend(batch.sessions.iter().map(|row| (row.id, row.clone())));
        batch.ended_sessions.iter().for_each(|id| drop(store.sessions.remove(id)));
        batch.forgotten_leases.iter().for_each(|id| drop(store.leases.remove(id)));
        batch.forgotten_resources.iter().for_each(|id| drop(store.resources.remove(id)));
        self.calls.extend(batch.effects.iter().cloned());
        self.last = batch;
        self.core.check_invariants().unwrap();
        assert!(self.core.leases(None).eq(self.store.leases.values()), "what is stored is what is in memory");
        assert!(self.core.machines().eq(self.store.machines.values()));
        assert!(self.core.sessions().eq(self.store.sessions.values()));
        let states = |row: &Arc<Resource>| (row.id, row.revision, row.state.clone());
        assert!(self.core.resources(None).map(states).eq(self.store.resources.values().map(states)));
        self.census_is_what_pools_show();
    }

    fn census_is_what_pools_show(&self) {
        let (census, pools) = (self.core.census(self.now), self.core.pools());
        assert_eq!(census.pools.len(), pools.len());
        for (counted, shown) in census.pools.iter().zip(&pools) {
            let states: BTreeMap<_, _> = counted.states.iter().map(|(state, found)| (*state, found.count)).collect();
            assert_eq!((&counted.config, states), (&shown.config, shown.by_state.clone()));
            let live = counted.preparing + counted.active;
            assert_eq!((live + counted.slots.cleaning, counted.slots.cleaning), (shown.leases, shown.cleaning));
            assert_eq!((counted.slots.leased, counted.slots.free), (live, shown.free_slots));
            let all: u32 = self.core.resources(None).filter(|row| row.pool == counted.config.name).map(slots_of).sum();
            let slots = counted.slots;
            // With fewer slots than before a resource may have more leases than slots for a while.
            let used = slots.free + slots.leased + slots.cleaning;
            assert_eq!(used + slots.unusable, all.max(used), "{slots:?}");
        }
        let queued = self.core.leases(None).filter(|lease| lease.state == LeaseState::Queued).count();
        assert_eq!(census.queued as usize, queued);
    }

    /// The broker dies and comes back: all that it knew is what it stored.
    pub(crate) fn restart(&mut self) {
        let store = &self.store;
        let snapshot = Snapshot {
            revision: store.revision,
            floor: store.floor,
            now: store.now,
            salt: 0,
            leases: store.leases.values().map(|row| Lease::clone(row)).collect(),
            resources: store.resources.values().map(|row| Resource::clone(row)).collect(),
            pools: store.pools.values().map(|row| PoolRow::clone(row)).collect(),
            machines: store.machines.values().map(|row| Machine::clone(row)).collect(),
            sessions: store.sessions.values().map(|row| Session::clone(row)).collect(),
        };
        self.core = Core::recover(snapshot, self.configuration(), Limits::default(), self.now);
        self.calls.clear();
        self.commit();
    }

    pub(crate) fn configure(&mut self, pools: Vec<PoolConfig>) {
        self.pools.clone_from(&pools);
        self.step(Input::Configure(self.configuration())).unwrap();
    }

    /// Each tenant by its name, `*` for all others.
    pub(crate) fn set_tenants(&mut self, tenants: &[(&str, Tenant)]) {
        let mut named: BTreeMap<Arc<str>, Tenant> =
            tenants.iter().map(|(name, tenant)| (Arc::from(*name), tenant.clone())).collect();
        let others = named.remove("*");
        self.tenants = Arc::new(Tenants { named, others });
        self.step(Input::Configure(self.configuration())).unwrap();
    }

    fn configuration(&self) -> Configuration {
        Configuration { pools: self.pools.clone(), tenants: self.tenants.clone() }
    }

    /// Time goes by; whatever becomes due meanwhile happens at its own time. The broker looks at the clock every
    /// second, as the engine does.
    pub(crate) fn pass(&mut self, span: Millis) {
        let until = self.now.after(span);
        while self.now < until {
            let due = self.core.next_deadline().unwrap_or(until).max(Timestamp(self.now.0 + 1));
            self.now = due.min(until).min(self.now.after(Millis::secs(1)));
            self.step(Input::Tick).unwrap();
        }
    }

    /// The core gets no input for this long, as if the process had been stopped.
    pub(crate) fn freeze(&mut self, span: Millis) {
        self.now = self.now.after(span);
        self.step(Input::Tick).unwrap();
    }

    // Holders.

    pub(crate) fn ask_all(&mut self, request: LeaseRequest) -> Vec<LeaseId> {
        match self.try_ask(request) {
            Ok(leases) => leases,
            Err(rejection) => panic!("refused: {rejection:?}"),
        }
    }

    pub(crate) fn try_ask(&mut self, mut request: LeaseRequest) -> Result<Vec<LeaseId>, Rejection> {
        if request.request_id.is_empty() {
            self.requests += 1;
            request.request_id = Arc::from(format!("request-{}", self.requests));
        }
        match self.step(Input::Lease(request))? {
            Reply::Leases(leases) => Ok(leases.iter().map(|lease| lease.id).collect()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, request: LeaseRequest) -> LeaseId {
        self.ask_all(request)[0]
    }

    pub(crate) fn lease(&mut self, pool: &str) -> LeaseId {
        self.ask(want(pool))
    }

    pub(crate) fn release(&mut self, lease: LeaseId, outcome: Outcome) {
        self.step(Input::Release {
            lease,
            caller: Caller::sole_tenant("ann"),
            outcome,
            note: Arc::from(""),
            hold: None,
        })
        .unwrap();
    }

    pub(crate) fn renew(&mut self, lease: LeaseId) -> Result<Reply, Rejection> {
        self.step(Input::Renew { lease, caller: Caller::sole_tenant("ann"), ttl: None })
    }

    // Operators and the world.

    /// A verb of an operator, and that it ends no other leases than were foretold.
    pub(crate) fn admin(&mut self, verb: AdminVerb) -> Result<Reply, Rejection> {
        let request = asked(verb.clone(), None);
        let foretold = self.core.view(&Scope::All).would(&request);
        let before: Vec<Arc<Lease>> = self.core.leases(None).cloned().collect();
        let reply = self.step(Input::Admin(request));
        match (foretold, &reply) {
            (Ok((foretold, _)), Ok(_)) => self.came_as_foretold(&verb, &foretold, &before),
            (Err(foretold), Err(refused)) => assert_eq!(&foretold, refused),
            (foretold, reply) => panic!("{verb:?}: foretold {foretold:?}, then {reply:?}"),
        }
        reply
    }

    fn came_as_foretold(&self, verb: &AdminVerb, foretold: &Impact, before: &[Arc<Lease>]) {
        if let AdminVerb::Drain(_, Some(_)) | AdminVerb::OnMachine(_, MachineVerb::Drain(Some(_))) = verb {
            return;
        }
        let of_clients = before.iter().filter(|lease| lease.spec.child.is_none() && !lease.ended());
        let (ended, live): (Vec<_>, Vec<_>) =
            of_clients.map(|lease| lease.id).partition(|id| self.core.lease(*id).is_none_or(|lease| lease.ended()));
        assert_eq!(foretold.broken, ended.into_iter().collect(), "{verb:?} ends what was foretold");
        let was_put_back = |id: &LeaseId| {
            self.last.events.iter().any(|event| event.kind == EventKind::LeaseRequeued && event.lease == Some(*id))
        };
        let put_back = live.into_iter().filter(was_put_back).collect();
        assert_eq!(foretold.put_back, put_back, "{verb:?} puts back what was foretold");
        for copy in &foretold.copies {
            assert!(
                self.core.resource(*copy).is_none_or(|row| matches!(row.state.stage(), Stage::Leaving | Stage::Gone)),
                "{copy} goes with its host"
            );
        }
    }

    /// A verb on a machine, by `pool/item` or by the item alone.
    pub(crate) fn on_machine(&mut self, name: &str, verb: MachineVerb) -> Result<Reply, Rejection> {
        self.admin(AdminVerb::OnMachine(MachineName::parse(name).expect("it is a name"), verb))
    }

    /// The store as a version without machines wrote it.
    pub(crate) fn forget_machines(&mut self) {
        self.store.machines.clear();
    }

    pub(crate) fn notice(&mut self, resource: ResourceId, kind: NoticeKind) {
        let pool = self.resource(resource).pool.clone();
        let target = NoticeTarget::Resource(resource);
        let (source, detail) = (Arc::from("cloud"), Arc::from("said so"));
        self.step(Input::Notice(Notice { pool, target, kind, source, detail })).unwrap();
    }

    // Adapters.

    /// Takes the oldest unanswered call of this kind.
    pub(crate) fn take(&mut self, wanted: Kind) -> Effect {
        let Some(at) = self.calls.iter().position(|call| kind(call) == wanted) else {
            panic!("no {wanted:?} among {:?}", self.calls.iter().map(kind).collect::<Vec<_>>());
        };
        self.calls.remove(at)
    }

    pub(crate) fn waits_for(&self, wanted: Kind) -> usize {
        self.calls.iter().filter(|call| kind(call) == wanted).count()
    }

    pub(crate) fn answer(&mut self, call: &Effect, failure: Option<CallFailure>) {
        let (resource, op) = (call.resource.id, call.op);
        let plain = failure.clone().map_or(Ok(()), Err);
        let input = match &call.work {
            Work::Provision(_) => {
                let made = Made { access: texts("address", &resource.to_string()), ..Made::default() };
                Input::Provisioned { resource, op, result: failure.map_or(Ok(made), Err) }
            }
            Work::Prepare(lease) => {
                // As the adapter of working copies tells it.
                let near = (*lease.spec.params).clone();
                let made = Prepared { access: texts("path", "/w"), near };
                Input::Prepared { lease: lease.id, op, result: failure.map_or(Ok(made), Err) }
            }
            Work::Clean(lease) => Input::Cleaned { lease: lease.id, op, result: plain },
            Work::Check => Input::Checked { resource, op, result: failure.map_or(Ok(Verdict::Healthy), Err) },
            Work::Probe => Input::Probed { resource, result: failure.map_or(Ok(Verdict::Healthy), Err) },
            Work::Repair => Input::Repaired { resource, op, result: plain },
            Work::Destroy => Input::Destroyed { resource, op, result: plain },
        };
        self.step(input).unwrap();
    }

    /// The oldest call of this kind works.
    pub(crate) fn works(&mut self, wanted: Kind) -> Effect {
        let call = self.take(wanted);
        self.answer(&call, None);
        call
    }

    /// The oldest call of this kind fails by this blame.
    pub(crate) fn fails(&mut self, wanted: Kind, blame: Blame) -> Effect {
        let call = self.take(wanted);
        self.answer(&call, Some(failure(blame)));
        call
    }

    /// The oldest check comes back with this verdict.
    pub(crate) fn verdict(&mut self, verdict: Verdict) -> Effect {
        let call = self.take(Kind::Check);
        self.step(Input::Checked { resource: call.resource.id, op: call.op, result: Ok(verdict) }).unwrap();
        call
    }

    /// The oldest probe comes back with this verdict.
    pub(crate) fn probed(&mut self, verdict: Verdict) {
        let call = self.take(Kind::Probe);
        self.step(Input::Probed { resource: call.resource.id, result: Ok(verdict) }).unwrap();
    }

    /// Every call works, and what follows from that, until nothing is asked any more.
    pub(crate) fn all_works(&mut self) {
        for _ in 0..10_000 {
            let Some(call) = self.calls.pop() else { return };
            self.answer(&call, None);
        }
        panic!("the calls never end");
    }

    // The present state.

    pub(crate) fn row(&self, lease: LeaseId) -> &Lease {
        self.core.lease(lease).expect("the lease is kept")
    }

    pub(crate) fn resource(&self, id: ResourceId) -> &Resource {
        self.core.resource(id).expect("the resource is kept")
    }

    pub(crate) fn state(&self, lease: LeaseId) -> &'static str {
        match &self.row(lease).state {
            LeaseState::Queued => "QUEUED",
            LeaseState::Preparing { .. } => "PREPARING",
            LeaseState::Active { .. } => "ACTIVE",
            LeaseState::Ended { how, .. } => how.as_str(),
        }
    }

    pub(crate) fn states(&self, leases: &[LeaseId]) -> Vec<&'static str> {
        leases.iter().map(|lease| self.state(*lease)).collect()
    }

    pub(crate) fn stands(&self, id: ResourceId) -> &'static str {
        self.resource(id).state.as_str()
    }

    /// The resource that a lease holds.
    pub(crate) fn on(&self, lease: LeaseId) -> ResourceId {
        self.row(lease).assignment().expect("it holds a slot").resource
    }

    pub(crate) fn token(&self, lease: LeaseId) -> u64 {
        self.row(lease).assignment().expect("it holds a slot").token
    }

    pub(crate) fn cause(&self, lease: LeaseId) -> &CauseChain {
        match &self.row(lease).state {
            LeaseState::Ended { how: Ended::Broken { cause, .. }, .. } => cause,
            other => panic!("not broken: {other:?}"),
        }
    }

    pub(crate) fn resources_of(&self, pool: &str) -> Vec<ResourceId> {
        let live = |row: &&Arc<Resource>| !matches!(row.state, ResourceState::Gone { .. });
        self.core.resources(None).filter(live).filter(|row| &*row.pool == pool).map(|row| row.id).collect()
    }

    pub(crate) fn explain(&self, lease: LeaseId) -> String {
        let explanation = self.core.explain(lease, self.now, &Scope::All).expect("the lease is kept");
        let mut text = explanation.summary;
        for blocker in explanation.blockers {
            text.push_str(&format!("\n{} {}: {} ({})", blocker.pool, blocker.code, blocker.detail, blocker.remedy));
        }
        text
    }
}

pub(crate) fn texts(key: &str, value: &str) -> Texts {
    [(Arc::from(key), Arc::from(value))].into()
}

pub(crate) fn mangled(repairable: bool) -> Verdict {
    Verdict::Mangled { repairable, reason: "GIT_GONE", detail: ".git is missing".into() }
}

pub(crate) fn silent() -> Verdict {
    Verdict::Unreachable { reason: "NO_ROUTE", detail: "no answer".into() }
}

pub(crate) fn vanished() -> Verdict {
    Verdict::Gone { reason: "TERMINATED", detail: "the provider says so".into() }
}

/// One host with working copies on it, and a lease on one of them that is ready to work.
pub(crate) fn lease_on_copy(slots: u32) -> (World, LeaseId, ResourceId, ResourceId) {
    let mut w =
        World::new(vec![PoolConfig { slots, ..inventory("hosts", &["h1", "h2"]) }, copies("copies", "hosts", 4)]);
    let lease = w.lease("copies");
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
    let copy = w.on(lease);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    (w, lease, copy, host)
}

pub(crate) const NO_OP: Op = Op(0);
