//! The same on PostgreSQL, which is started for it: on the same disk, with fsync, by its port of 127.0.0.1 without TLS.

#[path = "../../tests/support/postgres.rs"]
mod server;

use crate::meter::Plan;
use crate::scale::{Shape, compare, fill_store, now};
use crate::wharf::{Wharf, pool};
use server::Cluster;
use std::sync::Arc;
use std::time::Instant;
use wharfinger::engine::{Cycle, changes_after};
use wharfinger::store::{PostgresSettings, PostgresStore, Store};
use wharfinger_core::{Core, Limits};

pub(crate) struct Postgres {
    pub(crate) wharf: Wharf,
    _cluster: Cluster,
}

impl Postgres {
    /// `None`, with a message, if PostgreSQL is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let cluster = Cluster::start()?;
        let wharf = Wharf::over(Arc::new(open(&cluster).await), 1).await;
        Some(Postgres { wharf, _cluster: cluster })
    }
}

/// A store in a schema of its own.
async fn open(cluster: &Cluster) -> PostgresStore {
    let url = cluster.url().replace("sslmode=require", "sslmode=disable");
    let settings = PostgresSettings { schema: server::schema(), ..PostgresSettings::new(url) };
    PostgresStore::open(&settings).await.expect("a fresh schema")
}

/// Many live leases: how long a take-over takes, cold and from what was followed, and whether an operation costs more.
pub(crate) async fn scale(shape: Shape, plan: Plan) {
    let Some(cluster) = Cluster::start() else { return };
    let (small, large) = (open(&cluster).await, open(&cluster).await);
    fill_store(&small, Shape::SMALL).await;
    fill_store(&large, shape).await;
    let store: Arc<dyn Store> = Arc::new(large);
    let begun = Instant::now();
    let snapshot = store.load().await.expect("it loads");
    println!("\nPostgreSQL, {shape}: read in {:.1} s", begun.elapsed().as_secs_f64());
    let pools = vec![pool(shape.resources)];
    let core = Core::follow(snapshot, pools.clone(), Limits::default(), now());
    let epoch = store.acquire().await.expect("ours");
    let begun = Instant::now();
    let missed = changes_after(&*store, core.revision()).await.expect("nothing is missed");
    assert_eq!(missed.revision, core.revision(), "nobody else writes");
    let followed = Some(core.snapshot());
    let taken = Cycle::take_over(store.clone(), epoch, followed, (pools.into(), Limits::default()), now).await;
    println!(
        "PostgreSQL, {shape}: take-over by a server that followed, to its first commit: {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    drop((taken.expect("it takes over"), core));
    let begun = Instant::now();
    let large = Wharf::over(store, shape.resources).await;
    println!("PostgreSQL, {shape}: start to the first lease served: {:.1} s", begun.elapsed().as_secs_f64());
    let small = Wharf::over(Arc::new(small), 1).await;
    compare("PostgreSQL", &small, &large, shape, plan).await;
}
