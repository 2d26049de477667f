//! Memory of the adapter per idle host: the instance, its owner and its counts. The SSH connection and the broker's row are measured
//! elsewhere.
//!
//! `cargo bench -p wharfinger-ec2 --features fake`

use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wharfinger_adapter::{Failure, Notice};
use wharfinger_ec2::cloud::Cloud;
use wharfinger_ec2::fake::FakeCloud;
use wharfinger_ec2::{Accounts, Broker, Config, Ec2Adapter, Phase, Row};

const HOSTS: usize = 10_000;

struct Books(Vec<Row>);

#[async_trait]
impl Broker for Books {
    async fn rows(&self) -> Result<Vec<Row>, Failure> {
        Ok(self.0.clone())
    }

    async fn tell(&self, notice: Notice) -> Result<(), Failure> {
        Err(Failure::bug("TOLD", format!("nothing was to be told: {notice:?}")))
    }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Row of a serving host.
fn row(cloud: &FakeCloud, number: usize) -> Row {
    let resource = format!("res_01KAV9FT00QVQG{number:012}");
    let attempt = "1";
    let instance = cloud.stray(&[
        ("Name", "wharfinger spot"),
        ("wharfinger:deployment", "bench"),
        ("wharfinger:pool", "spot"),
        ("wharfinger:resource", &resource),
        ("wharfinger:attempt", attempt),
    ]);
    let host_key = format!("ssh-ed25519 {}", "A".repeat(68));
    let host = serde_json::json!({ "instance": instance, "type": "m7i.large", "zone": "us-east-1a", "spot": true,
                                   "launched_ms": 1_700_000_000_000_i64, "host_key": host_key });
    let handle = serde_json::json!({ "stage": "ready", "attempt": 1, "host": host, "ssh": "x".repeat(400) });
    Row { pool: "spot".into(), resource, handle: Some(handle.to_string()), phase: Phase::Serving }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, wharfinger_ssh::host_key().expect("a key").private).expect("written");
    let cloud = Arc::new(FakeCloud::new());
    let rows = (0..HOSTS).map(|number| row(&cloud, number)).collect();
    let mut config: Config = toml::from_str(
        "deployment = \"bench\"\nregion = \"us-east-1\"\nimage = \"ami-1\"\ntypes = [\"m7i.large\"]\n\
         subnets = { us-east-1a = \"subnet-a\" }\nssh = { user = \"build\", key = \"\" }\nreconcile_ms = 200",
    )
    .expect("a configuration");
    config.ssh.key = Some(key);
    let shared: Arc<dyn Cloud> = cloud;
    let adapter = Ec2Adapter::new("spot".into(), config, &Accounts::of(move |_| shared.clone())).expect("an adapter");
    let books: Arc<dyn Broker> = Arc::new(Books(rows));
    // The lists and rows of a sweep leave free memory that is not returned, so they are read before the measurement.
    for _ in 0..3 {
        drop((books.rows().await, books.rows().await));
    }
    let before = resident();
    adapter.attend(books);
    while adapter.account().counters.sweeps.load(Ordering::Relaxed) < 5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = resident();
    println!("TABLE | ec2 adapter, {HOSTS} idle hosts | at most {} bytes a host |", (after - before) / HOSTS);
}
