//! A seeded simulation. The provider is eventually consistent, loses answers, takes instances away and is down at times. The broker dies
//! at any point. `EC2_SEED=n` runs one seed, `EC2_SEEDS=n` the first n.
//!
//! After each step no resource has two instances that cost money, and no notice reports a living instance as gone. A removed resource
//! has no instance, listed or not. In the end, without faults, the instances are exactly those of the serving resources.

use super::world::{Notes, World, job};
use crate::broker::Phase;
use crate::cloud::{Place, State};
use crate::fake::Fault;
use crate::reconcile::Sweep;
use crate::record::Record;
use crate::sqs;
use crate::tags;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{advance, timeout};
use wharfinger_adapter::{Adapter, NoticeKind};

const STEPS: usize = 120;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn pick<T: Clone>(&mut self, some: &[T]) -> Option<T> {
        if some.is_empty() {
            return None;
        }
        let at = self.below(some.len() as u64);
        Some(some[usize::try_from(at).unwrap()].clone())
    }
}

struct Sim {
    world: World,
    rng: Rng,
    sweep: Sweep,
    /// The journal of each resource that is not gone.
    notes: BTreeMap<String, Notes>,
    next: u32,
    seed: u64,
    told_gone: BTreeSet<String>,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let world = World::new(|config| {
            config.cool_ms = 20_000;
            if seed.is_multiple_of(2) {
                config.types.truncate(1);
                config.subnets.pop_last();
            }
        });
        world.cloud.slow(Duration::from_secs(rng.below(290)), Duration::from_secs(rng.below(20)));
        world.cloud.paged(usize::try_from(1 + rng.below(3)).unwrap());
        Self { world, rng, sweep: Sweep::default(), notes: BTreeMap::new(), next: 0, seed, told_gone: BTreeSet::new() }
    }

    fn in_phase(&self, phase: Phase) -> Vec<String> {
        let rows = self.world.books.rows.lock().unwrap();
        rows.iter().filter(|row| row.phase == phase).map(|row| row.resource.clone()).collect()
    }

    fn set(&self, resource: &str, phase: Phase) {
        let mut rows = self.world.books.rows.lock().unwrap();
        for row in rows.iter_mut().filter(|row| row.resource == resource) {
            row.phase = phase;
        }
    }

    /// Copies the journal of a resource into the broker's rows.
    fn write_down(&self, resource: &str) {
        let mut rows = self.world.books.rows.lock().unwrap();
        for row in rows.iter_mut().filter(|row| row.resource == resource) {
            row.handle = self.notes[resource].last();
        }
    }

    /// Provisions a resource until the call ends or is cut off after `span`.
    async fn make(&mut self, resource: &str, span: Duration) {
        let notes = &self.notes[resource];
        let made = timeout(span, self.world.launch(resource, notes)).await;
        self.write_down(resource);
        if let Ok(Ok(host)) = made {
            let note = Record::Ready { attempt: 1, host, ssh: String::new() };
            let text = note.text().unwrap();
            self.notes.insert(resource.to_string(), Notes::from(text));
            self.write_down(resource);
            self.set(resource, Phase::Serving);
        }
    }

    async fn remove(&mut self, resource: &str, span: Duration) {
        self.set(resource, Phase::Leaving);
        let handle = self.notes[resource].last();
        let job = job(resource, handle).resource;
        if let Ok(Ok(())) = timeout(span, self.world.adapter.destroy(&job)).await {
            self.world.books.rows.lock().unwrap().retain(|row| row.resource != resource);
            let note = self.notes.remove(resource).and_then(|notes| notes.last());
            // The lists lack forgotten instances for good.
            let is_left = |id: &str| !self.world.cloud.is_forgotten(id);
            let mut left = self.world.cloud.alive();
            left.retain(|one| one.tags[tags::RESOURCE] == resource && is_left(&one.id));
            assert!(left.is_empty(), "{resource} was removed by {note:?}, and EC2 still has {left:?}");
        }
    }

    fn want(&mut self) -> String {
        self.next += 1;
        let resource = format!("res_{}_{}", self.seed, self.next);
        self.notes.insert(resource.clone(), Notes::default());
        self.world.books.rows.lock().unwrap().push(crate::broker::Row {
            pool: "spot".into(),
            resource: resource.clone(),
            handle: None,
            phase: Phase::Making,
        });
        resource
    }

    async fn step(&mut self) {
        let span = Duration::from_millis(self.rng.below(4000));
        match self.rng.below(23) {
            0..=2 if self.notes.len() < 5 => {
                let resource = self.want();
                self.make(&resource, span).await;
            }
            3..=6 => {
                if let Some(resource) = self.rng.pick(&self.in_phase(Phase::Making)) {
                    self.make(&resource, span).await;
                }
            }
            7 => {
                let all: Vec<String> = self.notes.keys().cloned().collect();
                if let Some(resource) = self.rng.pick(&all) {
                    self.remove(&resource, span).await;
                }
            }
            8 | 9 => {
                if let Some(resource) = self.rng.pick(&self.in_phase(Phase::Leaving)) {
                    self.remove(&resource, span).await;
                }
            }
            10 => self.world.restart(),
            11 => {
                let call =
                    self.rng.pick(&["RunInstances", "CreateFleet", "CreateLaunchTemplate", "TerminateInstances"]);
                let fault = self.rng.pick(&[
                    Fault::Lost,
                    Fault::Unheard,
                    Fault::Refused("RequestLimitExceeded"),
                    Fault::Refused("InsufficientInstanceCapacity"),
                    Fault::Refused("UnauthorizedOperation"),
                ]);
                self.world.cloud.fault(call.unwrap(), fault.unwrap());
            }
            18 => {
                // The answer is lost, and the repetition is refused.
                let call = self.rng.pick(&["RunInstances", "CreateFleet"]).unwrap();
                let code = self.rng.pick(&["UnauthorizedOperation", "ExpiredToken", "VcpuLimitExceeded"]).unwrap();
                self.world.cloud.fault(call, Fault::Lost);
                self.world.cloud.fault(call, Fault::Refused(code));
            }
            19 => {
                // The broker is away, and continues with an old request.
                advance(Duration::from_secs(self.rng.below(900))).await;
                self.world.restart();
            }
            20 => {
                // The broker continues with a request whose answers are lost.
                let call = self.rng.pick(&["RunInstances", "CreateFleet"]).unwrap();
                (0..=self.rng.below(3)).for_each(|_| self.world.cloud.fault(call, Fault::Lost));
                self.world.restart();
            }
            12 => self.world.cloud.fault("DescribeInstances", Fault::Refused("RequestLimitExceeded")),
            13 => {
                let alive: Vec<String> = self.world.cloud.alive().into_iter().map(|one| one.id).collect();
                if let Some(id) = self.rng.pick(&alive) {
                    self.world.cloud.becomes(&id, State::Terminated, Some("Server.SpotInstanceTermination"));
                    let detail = json!({ "instance-id": id, "state": "terminated" });
                    let kind = "EC2 Instance State-change Notification";
                    let event = json!({ "source": "aws.ec2", "detail-type": kind, "detail": detail }).to_string();
                    // Some notices are lost, and some come twice.
                    for _ in 0..self.rng.below(3) {
                        self.world.cloud.send(&event);
                    }
                }
            }
            14 => {
                let down = self.rng.below(3) == 0;
                self.world.cloud.down(down);
            }
            15 => {
                // Only known hosts are forgotten: the lists may be late, and have every instance in the end.
                let hosts = self.notes.values().filter_map(|notes| Some(notes.note()?.host()?.instance.clone()));
                if let Some(id) = self.rng.pick(&hosts.collect::<Vec<_>>()) {
                    let forgotten = self.rng.below(2) == 0;
                    self.world.cloud.forgets(&id, forgotten);
                }
            }
            16 => {
                let zone = self.rng.pick(&["us-east-1a", "us-east-1b"]).unwrap();
                let (subnet, instance_type) = (format!("subnet-{}", &zone[9..]), "m7i.large".to_string());
                let place = Place { instance_type, zone: zone.into(), subnet };
                let (there_is, is_offered) = (self.rng.below(2) == 0, self.rng.below(2) == 0);
                self.world.cloud.capacity(&place, true, there_is);
                let code = if self.seed.is_multiple_of(2) { "Unsupported" } else { "InvalidFleetConfiguration" };
                self.world.cloud.refuses(&place, true, (!is_offered).then_some(code));
            }
            17 => {
                let _ = timeout(Duration::from_secs(1), sqs::receive(self.world.adapter.account(), "queue")).await;
            }
            _ => {
                self.sweep.once(self.world.adapter.account()).await;
                advance(Duration::from_secs(self.rng.below(40))).await;
            }
        }
        self.hear();
        self.holds();
    }

    /// Handles the notices as a broker does.
    fn hear(&mut self) {
        for (resource, kind, source) in self.world.books.heard() {
            if kind != NoticeKind::Gone {
                continue;
            }
            let Some(note) = self.notes.get(&resource).and_then(Notes::note) else { continue };
            if let Some(host) = note.host() {
                let really = self.world.cloud.instances().into_iter().find(|one| one.id == host.instance);
                assert!(really.is_some_and(|one| one.state.is_over()), "{source} reports {resource} as gone");
                self.told_gone.insert(host.instance.clone());
            }
            if self.in_phase(Phase::Serving).contains(&resource) {
                self.set(&resource, Phase::Leaving);
            }
        }
    }

    fn holds(&self) {
        let mut by_resource: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for instance in self.world.cloud.alive() {
            by_resource.entry(instance.tags[tags::RESOURCE].clone()).or_default().push(instance.id);
        }
        for (resource, instances) in &by_resource {
            assert!(instances.len() <= 1, "{resource} has {instances:?}");
        }
        for resource in self.in_phase(Phase::Serving) {
            let host = self.notes[&resource].note().and_then(|note| note.host().cloned()).unwrap();
            let really = self.world.cloud.instances().into_iter().find(|one| one.id == host.instance).unwrap();
            let reason = really.reason.as_ref().map_or("", |reason| reason.code.as_str());
            assert!(!really.state.is_over() || reason.starts_with("Server."), "{resource} was ended by us: {really:?}");
        }
    }

    /// Ends all faults, and lets the broker finish.
    async fn settle(&mut self) {
        self.world.cloud.calm();
        for _ in 0..40 {
            for resource in self.in_phase(Phase::Making) {
                self.make(&resource, Duration::from_secs(120)).await;
            }
            for resource in self.in_phase(Phase::Leaving) {
                self.remove(&resource, Duration::from_secs(120)).await;
            }
            let _ = timeout(Duration::from_secs(1), sqs::receive(self.world.adapter.account(), "queue")).await;
            self.sweep.once(self.world.adapter.account()).await;
            advance(Duration::from_secs(30)).await;
            self.hear();
            self.holds();
        }
        assert!(self.in_phase(Phase::Making).is_empty() && self.in_phase(Phase::Leaving).is_empty());
        let alive: BTreeSet<String> = self.world.cloud.alive().into_iter().map(|one| one.id).collect();
        let wanted: BTreeSet<String> = self
            .in_phase(Phase::Serving)
            .iter()
            .map(|resource| self.notes[resource].note().and_then(|note| note.host().cloned()).unwrap().instance)
            .collect();
        assert_eq!(alive, wanted, "the instances of the serving resources");
    }
}

async fn run(seed: u64) {
    let mut sim = Sim::new(seed);
    for _ in 0..STEPS {
        sim.step().await;
    }
    sim.settle().await;
}

#[test]
fn after_any_faults_exactly_the_wanted_instances_run() {
    let of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let long = std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1");
    let seeds = match of("EC2_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..of("EC2_SEEDS").unwrap_or(if long { 5000 } else { 200 }),
    };
    for seed in seeds {
        let ended = std::panic::catch_unwind(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(run(seed));
        });
        assert!(ended.is_ok(), "seed {seed} fails: EC2_SEED={seed} cargo test -p wharfinger-ec2 simulation");
    }
}
