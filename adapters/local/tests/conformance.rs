//! The local adapter keeps the contract, on this very machine.

use std::sync::Arc;
use wharfinger_adapter::{Adapter, Command, ResourceJob, Shell, Verdict, access};
use wharfinger_host::conformance;
use wharfinger_local::{Config, LocalAdapter, LocalShell};

fn job(resource: &str) -> ResourceJob {
    ResourceJob { pool: "local".into(), resource: resource.into(), op: 1, item: None, handle: None, parent: None }
}

fn adapter(root: &tempfile::TempDir) -> LocalAdapter {
    let root = root.path().join("root");
    LocalAdapter::new("local".into(), Config { min_free_disk_mb: 1, ..Config::new(root) })
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    conformance::shell::all(Arc::new(LocalShell), dir.path().to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adapter_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    conformance::adapter::all(Arc::new(adapter(&root)), job("res_local")).await;
}

#[tokio::test]
async fn scratch_directory_that_vanishes_is_mangled_and_mended() {
    let root = tempfile::tempdir().unwrap();
    let adapter = adapter(&root);
    let (job, made) = conformance::adapter::made(&adapter, &job("res_scratch")).await;
    std::fs::remove_dir_all(&made.access[access::PATH]).unwrap();
    for verdict in [adapter.check(&job).await, adapter.probe(&job).await] {
        assert!(
            matches!(verdict, Ok(Verdict::Mangled { repairable: true, reason: "SCRATCH_MISSING", .. })),
            "{verdict:?}"
        );
    }
    adapter.repair(&job).await.unwrap();
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
}

#[tokio::test]
async fn a_host_stays_in_its_directory_after_a_change_of_root() {
    let root = tempfile::tempdir().unwrap();
    let before = adapter(&root);
    let (job, made) = conformance::adapter::made(&before, &job("res_moved")).await;
    let after = root.path().join("after");
    let now = LocalAdapter::new("local".into(), Config { min_free_disk_mb: 1, ..Config::new(after.clone()) });
    assert_eq!([now.check(&job).await, now.probe(&job).await], [Ok(Verdict::Healthy), Ok(Verdict::Healthy)]);
    let (_, other) = conformance::adapter::made(&now, &self::job("res_after")).await;
    assert!(other.access[access::PATH].starts_with(after.to_str().unwrap()), "{other:?}");
    now.destroy(&job).await.unwrap();
    assert!(!std::path::Path::new(&made.access[access::PATH]).exists());
}

#[tokio::test]
async fn another_boot_is_gone_and_a_full_disk_is_mangled() {
    let root = tempfile::tempdir().unwrap();
    let adapter = adapter(&root);
    let (mut job, made) = conformance::adapter::made(&adapter, &job("res_boot")).await;
    let greedy = Config { min_free_disk_mb: u64::MAX >> 21, ..Config::new(root.path().join("root")) };
    let greedy = LocalAdapter::new("local".into(), greedy);
    for verdict in [greedy.check(&job).await, greedy.probe(&job).await] {
        assert!(matches!(verdict, Ok(Verdict::Mangled { repairable: false, reason: "DISK_FULL", .. })), "{verdict:?}");
    }
    job.handle = Some(made.handle.replace(&made.access[access::BOOT_ID], "00000000-0000-0000-0000-000000000000"));
    for verdict in [adapter.check(&job).await, adapter.probe(&job).await] {
        assert!(matches!(verdict, Ok(Verdict::Gone { reason: "REBOOTED", .. })), "{verdict:?}");
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_made_is_the_operators_to_mend() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), "in the way").unwrap();
    let adapter = LocalAdapter::new("local".into(), Config::new(root.path().join("file")));
    let result = adapter.provision(&wharfinger_adapter::ProvisionJob { resource: job("res_x"), attempt: 0 }).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.reason, "SCRATCH_UNUSABLE", "{failure}");
    assert_eq!(failure.blame, wharfinger_adapter::Blame::Configuration);
}

#[tokio::test]
async fn settings_and_marks_of_the_broker_are_not_passed_on() {
    let output = LocalShell.run(Command::new(["env"]).env("WHARFINGER_LEASE", "lse_1")).await.unwrap();
    let ours: Vec<_> = output.text().lines().filter(|l| l.starts_with("WHARFINGER_")).map(str::to_string).collect();
    assert_eq!(ours, ["WHARFINGER_LEASE=lse_1"]);
}

#[test]
fn relative_roots_are_refused() {
    assert!(Config::new("relative").problems()[0].message.contains("absolute"));
    assert!(Config::new("/abs").problems().is_empty());
}
