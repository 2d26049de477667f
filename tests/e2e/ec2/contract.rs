//! The contract of every adapter, on an instance that the SDK launches in moto, with a real sshd behind it.
//!
//! The SDK reads its credentials from the environment of its process, so this test runs itself in a process of its own.

use super::account::{Account, skip};
use crate::sshd;
use async_trait::async_trait;
use std::sync::Arc;
use wharfinger_adapter::{Adapter, Failure, Notice, ResourceJob};
use wharfinger_ec2::{Accounts, Broker, Config, Ec2Adapter, Row};
use wharfinger_host::conformance;

/// Environment variable with the pool's configuration, for the inner test.
const CONFIG: &str = "WHARFINGER_TEST_EC2_CONTRACT";

/// A broker without rows. The instances of the test are too young to be orphans.
struct NoBooks;

#[async_trait]
impl Broker for NoBooks {
    async fn rows(&self) -> Result<Vec<Row>, Failure> {
        Ok(Vec::new())
    }

    async fn tell(&self, _notice: Notice) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn the_adapter_keeps_the_contract_on_moto() {
    if let Ok(config) = std::env::var(CONFIG) {
        return inside(&config);
    }
    if skip("the_adapter_keeps_the_contract_on_moto") {
        return;
    }
    let account = Account::start();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    sshd::make_key(&key, "ed25519");
    let config = account.alone(&key, &folder.path().join("work"));
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ec2::contract::the_adapter_keeps_the_contract_on_moto", "--nocapture"])
        .env(CONFIG, config)
        .envs(account.env())
        .output()
        .unwrap();
    let text = crate::support::text(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!((account.machines().len(), account.alive().len()), (1, 0), "one was launched and terminated: {text}");
    assert_eq!(account.launches().len(), 1);
}

fn inside(config: &str) {
    let config: Config = toml::from_str(config).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let adapter = Ec2Adapter::new("spot".into(), config, &Accounts::aws()).unwrap();
        adapter.attend(Arc::new(NoBooks));
        let (pool, resource) = ("spot".to_string(), "res_contract".to_string());
        let job = ResourceJob { pool, resource, op: 1, item: None, handle: None, parent: None };
        let adapter: Arc<dyn Adapter> = Arc::new(adapter);
        conformance::adapter::all_of_machines(adapter, job).await;
    });
}
