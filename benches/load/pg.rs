//! The same on PostgreSQL, which is started for it: on the same disk, with fsync, by its port of 127.0.0.1 without TLS.

#[path = "../../tests/support/postgres.rs"]
mod server;

use crate::meter::{Plan, median};
use crate::scale::fill_store;
use crate::wharf::Wharf;
use server::Cluster;
use std::sync::Arc;
use std::time::Instant;
use wharfinger::store::{PostgresSettings, PostgresStore, Store};

pub(crate) struct Postgres {
    pub(crate) wharf: Wharf,
    _cluster: Cluster,
}

impl Postgres {
    /// `None` if PostgreSQL is not installed, which is said.
    pub(crate) async fn start() -> Option<Self> {
        let cluster = Cluster::start()?;
        let wharf = Wharf::over(Arc::new(open(&cluster).await)).await;
        Some(Postgres { wharf, _cluster: cluster })
    }
}

/// A store in a schema of its own.
async fn open(cluster: &Cluster) -> PostgresStore {
    let url = cluster.url().replace("sslmode=require", "sslmode=disable");
    let settings = PostgresSettings { schema: server::schema(), ..PostgresSettings::new(url) };
    PostgresStore::open(&settings).await.expect("a fresh schema")
}

/// Many live leases: how long a start takes, and whether an operation costs more.
pub(crate) async fn scale(count: usize, plan: Plan) {
    let Some(cluster) = Cluster::start() else { return };
    let (small, large) = (open(&cluster).await, open(&cluster).await);
    fill_store(&small, 1000).await;
    fill_store(&large, count).await;
    let begun = Instant::now();
    let snapshot = large.load().await.expect("it loads");
    println!("{} live leases: read in {:.1} s", snapshot.leases.len(), begun.elapsed().as_secs_f64());
    drop(snapshot);
    let begun = Instant::now();
    let large = Wharf::over(Arc::new(large)).await;
    println!("start to the first lease served: {:.1} s   budget <= 5 s", begun.elapsed().as_secs_f64());
    let small = Wharf::over(Arc::new(small)).await;
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        few.push(small.cycle(plan).await.rate);
        many.push(large.cycle(plan).await.rate);
    }
    let (few, many) = (median(few), median(many));
    println!(
        "Lease+Release per second beside 1,000 leases {few:.0}, beside {count} {many:.0}: cost {:.2}   budget <= 1.3",
        few / many
    );
}
