//! Many live leases: what each costs in memory, how long a restart takes, and whether an operation costs more.

use crate::meter::{Plan, median};
use crate::wharf::{Wharf, pool};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use wharfinger::store::{SqliteStore, Store};
use wharfinger_core::{
    Batch, Caller, Claim, Core, Input, LeaseId, LeaseRequest, Limits, Made, Outcome, Reply, Selector, Snapshot, Texts,
    Timestamp, Work,
};

/// The content of a store.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Live leases.
    pub(crate) leases: usize,
    /// Leases that have ended and are still kept.
    pub(crate) ended: usize,
    pub(crate) resources: u32,
}

impl Shape {
    /// The size that others are compared with.
    pub(crate) const SMALL: Shape = Shape { leases: 1000, ended: 0, resources: 1 };
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} live leases, {} ended, {} resources", self.leases, self.ended, self.resources)
    }
}

/// Fills a database with live leases, as clients would have, and measures a start on it.
pub(crate) async fn run(folder: &Path, shape: Shape, plan: Plan) {
    let (small, large) = (folder.join("small.db"), folder.join("large.db"));
    fill(&small, Shape::SMALL).await;
    fill(&large, shape).await;

    // In processes of their own: this one still holds what filling the database left on its heap.
    let own = std::env::current_exe().expect("this program is a file");
    for args in [["--memory", large.to_str().expect("a plain path")], ["--grown", &shape.leases.to_string()]] {
        let told = std::process::Command::new(&own).arg("--bench").args(args).output().expect("it starts");
        print!("{}", String::from_utf8_lossy(&told.stdout));
    }

    let begun = Instant::now();
    let large = Wharf::with(&large, shape.resources).await;
    println!(
        "SQLite, {shape}: start to the first lease served: {:.1} s   budget <= 5 s",
        begun.elapsed().as_secs_f64()
    );
    let small = Wharf::start(&small).await;
    compare("SQLite", &small, &large, shape, plan).await;
}

/// The cost of an operation beside many rows, against beside few.
pub(crate) async fn compare(what: &str, small: &Wharf, large: &Wharf, shape: Shape, plan: Plan) {
    let alone = Plan { connections: 1, in_flight: 1, ..plan };
    let (mut many, mut few, mut one_many, mut one_few) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        few.push(small.cycle(plan).await.rate);
        many.push(large.cycle(plan).await.rate);
        one_few.push(small.cycle(alone).await.p50.as_secs_f64() * 1e3);
        one_many.push(large.cycle(alone).await.p50.as_secs_f64() * 1e3);
    }
    let (few, many, one_few, one_many) = (median(few), median(many), median(one_few), median(one_many));
    println!(
        "{what}, {shape}: Lease+Release per second {many:.0}, beside 1,000 leases {few:.0}: cost {:.2}   budget <= 1.3",
        few / many
    );
    println!("{what}: one Lease+Release alone: {one_many:.2} ms, {one_few:.2} ms: cost {:.2}", one_many / one_few);
}

/// Memory of the core alone, loaded from the store; what was read is dropped before the second look.
pub(crate) async fn memory(database: &Path) {
    let store = SqliteStore::open(database).await.expect("our own database");
    let before = resident();
    let begun = Instant::now();
    let snapshot = store.load().await.expect("it loads");
    let (loaded, count) = (begun.elapsed(), snapshot.leases.len());
    let resources = snapshot.resources.iter().filter(|row| row.slots > 0).count() as u32;
    let core = Core::recover(snapshot, vec![pool(resources.max(1))], Limits::default(), now());
    let recovered = begun.elapsed();
    // Freed memory goes back to the system a little later, with the next allocations.
    for _ in 0..30 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        drop(std::hint::black_box(vec![0_u8; 1 << 20]));
    }
    let each = resident().saturating_sub(before) / count.max(1);
    println!(
        "\n{count} leases: read in {:.1} s, recovered in {:.1} s, {each} bytes of memory each after a start   budget <= 1024",
        loaded.as_secs_f64(),
        recovered.as_secs_f64()
    );
    drop(core);
    store.close().await;
}

/// Memory of a core whose leases came one by one.
pub(crate) fn grown(count: usize) {
    let mut core = Core::recover(Snapshot::default(), vec![pool(1)], Limits::default(), now());
    settle(&mut core, |_| ());
    let before = resident();
    for n in 0..count {
        ask(&mut core, n);
        if n % 256 == 255 {
            drop(core.take_batch());
        }
    }
    drop(core.take_batch());
    println!(
        "{count} leases that came one by one: {} bytes of memory each   budget <= 1024",
        resident().saturating_sub(before) / count.max(1)
    );
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

/// Bytes of memory in use.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Through the core, so that what is stored is what it would store.
async fn fill(path: &Path, shape: Shape) {
    let store = SqliteStore::open(path).await.expect("a fresh database");
    fill_store(&store, shape).await;
    store.close().await;
}

/// The same for any store.
pub(crate) async fn fill_store(store: &dyn Store, shape: Shape) {
    let epoch = store.acquire().await.expect("ours");
    let salt = store.load().await.expect("empty").salt;
    let pools = vec![pool(shape.resources)];
    let mut core = Core::recover(Snapshot { salt, ..Snapshot::default() }, pools, Limits::default(), now());
    let mut batches = Vec::new();
    settle(&mut core, |batch| batches.push(batch));
    for batch in batches {
        store.commit(&batch, epoch).await.expect("stored");
    }
    for n in 0..shape.ended + shape.leases {
        let id = ask(&mut core, n);
        if n < shape.ended {
            let (caller, note) = (Caller::sole_tenant("local"), Arc::from(""));
            let released = Input::Release { lease: id, caller, outcome: Outcome::Ok, note, hold: None };
            core.step(now(), released).expect("it is released");
        }
        if n % 4096 == 4095 {
            store.commit(&core.take_batch(), epoch).await.expect("stored");
        }
    }
    store.commit(&core.take_batch(), epoch).await.expect("stored");
}

/// One more lease.
fn ask(core: &mut Core, n: usize) -> LeaseId {
    let none = Arc::new(Texts::new());
    let request = LeaseRequest {
        request_id: Arc::from(format!("build-{n:08}")),
        caller: Caller::sole_tenant("local"),
        holder: Arc::from(format!("https://ci.example.org/job/{n:08}")),
        claims: vec![Claim { selector: Arc::new(Selector::pool("bench")), count: 1, params: none.clone() }],
        priority: 0,
        ttl: None,
        queue_for: None,
        no_queue: false,
        expected: None,
        tags: none,
        independent: false,
        replace: false,
        work: None,
        avoid: Vec::new(),
        total: None,
        session: None,
    };
    match core.step(now(), Input::Lease(request)).expect("a lease") {
        Reply::Leases(leases) => leases[0].id,
        _ => unreachable!("a request is answered with its leases"),
    }
}

/// All resources are made at once.
fn settle(core: &mut Core, mut stored: impl FnMut(Batch)) {
    loop {
        let mut batch = core.take_batch();
        let effects = std::mem::take(&mut batch.effects);
        stored(batch);
        let made: Vec<Input> = effects
            .into_iter()
            .filter(|effect| matches!(effect.work, Work::Provision(_)))
            .map(|effect| {
                let (resource, op) = (effect.resource.id, effect.op);
                Input::Provisioned { resource, op, result: Ok(Made::default()) }
            })
            .collect();
        if made.is_empty() {
            return;
        }
        for input in made {
            core.step(now(), input).expect("it is made");
        }
    }
}
