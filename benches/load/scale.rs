//! Many live leases: what each costs in memory, how long a restart takes, and whether an operation costs more.

use crate::meter::{Plan, median};
use crate::wharf::{Wharf, pool};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use wharfinger::store::{SqliteStore, Store};
use wharfinger_core::{Claim, Core, Input, LeaseRequest, Limits, Made, Selector, Snapshot, Texts, Timestamp, Work};

/// Fills a database with live leases, as clients would have, and measures a start on it.
pub(crate) async fn run(folder: &Path, count: usize, plan: Plan) {
    let (small, large) = (folder.join("small.db"), folder.join("large.db"));
    fill(&small, 1000).await;
    fill(&large, count).await;

    // In a process of its own: this one still holds what filling the database left on its heap.
    let own = std::env::current_exe().expect("this program is a file");
    let told = std::process::Command::new(own).args(["--bench", "--memory"]).arg(&large).output().expect("it starts");
    print!("{}", String::from_utf8_lossy(&told.stdout));

    let begun = Instant::now();
    let large = Wharf::start(&large).await;
    println!("start to the first lease served: {:.1} s   budget <= 5 s", begun.elapsed().as_secs_f64());
    let small = Wharf::start(&small).await;
    let alone = Plan { connections: 1, in_flight: 1, ..plan };
    let (mut many, mut few, mut one_many, mut one_few) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        few.push(small.cycle(plan).await.rate);
        many.push(large.cycle(plan).await.rate);
        one_few.push(small.cycle(alone).await.p50.as_secs_f64() * 1e3);
        one_many.push(large.cycle(alone).await.p50.as_secs_f64() * 1e3);
    }
    let (few, many, one_few, one_many) = (median(few), median(many), median(one_few), median(one_many));
    println!(
        "Lease+Release per second beside 1,000 leases {few:.0}, beside {count} {many:.0}: cost {:.2}   budget <= 1.3",
        few / many
    );
    println!("one Lease+Release alone: {one_few:.2} ms, {one_many:.2} ms: cost {:.2}", one_many / one_few);
}

/// Memory of the core alone, loaded from the store; what was read is dropped before the second look.
pub(crate) async fn memory(database: &Path) {
    let store = SqliteStore::open(database).await.expect("our own database");
    let before = resident();
    let begun = Instant::now();
    let snapshot = store.load().await.expect("it loads");
    let (loaded, count) = (begun.elapsed(), snapshot.leases.len());
    let core = Core::recover(snapshot, vec![pool()], Limits::default(), now());
    let recovered = begun.elapsed();
    let each = resident().saturating_sub(before) / count.max(1);
    println!(
        "\n{count} live leases: read in {:.1} s, recovered in {:.1} s, {each} bytes of memory each   budget <= 1024",
        loaded.as_secs_f64(),
        recovered.as_secs_f64()
    );
    drop(core);
    store.close().await;
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

/// Bytes of memory in use.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Through the core, so that what is stored is what it would store.
async fn fill(path: &Path, count: usize) {
    fill_store(&SqliteStore::open(path).await.expect("a fresh database"), count).await;
}

/// The same for any store.
pub(crate) async fn fill_store(store: &dyn Store, count: usize) {
    let epoch = store.acquire().await.expect("ours");
    let salt = store.load().await.expect("empty").salt;
    let mut core = Core::recover(Snapshot { salt, ..Snapshot::default() }, vec![pool()], Limits::default(), now());
    let mut batch = core.take_batch();
    for effect in core_effects(&mut batch) {
        let _ = core.step(now(), effect);
    }
    store.commit(&batch, epoch).await.expect("stored");
    let selector = Arc::new(Selector::pool("bench"));
    let none = Arc::new(Texts::new());
    for n in 0..count {
        let request = LeaseRequest {
            request_id: Arc::from(format!("build-{n:08}")),
            principal: Arc::from("local"),
            holder: Arc::from(format!("https://ci.example.org/job/{n:08}")),
            claims: vec![Claim { selector: selector.clone(), count: 1, params: none.clone() }],
            priority: 0,
            ttl: None,
            queue_for: None,
            no_queue: false,
            expected: None,
            tags: none.clone(),
            independent: false,
            replace: false,
            work: None,
        };
        core.step(now(), Input::Lease(request)).expect("a lease");
        if n % 4096 == 4095 || n + 1 == count {
            store.commit(&core.take_batch(), epoch).await.expect("stored");
        }
    }
    store.close().await;
}

/// The one resource of the pool is made at once.
fn core_effects(batch: &mut wharfinger_core::Batch) -> Vec<Input> {
    let effects = std::mem::take(&mut batch.effects);
    effects
        .into_iter()
        .filter(|effect| matches!(effect.work, Work::Provision(_)))
        .map(|effect| Input::Provisioned { resource: effect.resource.id, op: effect.op, result: Ok(Made::default()) })
        .collect()
}
