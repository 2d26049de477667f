//! Announcements for this machine reach the broker.

use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wharfinger_adapter::{Adapter, Blame, NoticeKind, NoticeTarget, ProvisionJob, ResourceJob};
use wharfinger_local::{Config, LocalAdapter};

/// Maximum wait for a notice. It ends a test that would hang, and measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_drop_file_announces_to_each_resource_and_its_removal_calls_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.min_free_disk_mb = 1;
    let adapter = LocalAdapter::new("here".into(), config);
    let (tx, mut notices) = mpsc::channel(16);
    adapter.subscribe(tx);
    let job = |resource: &str| ResourceJob {
        pool: "here".into(),
        resource: resource.into(),
        op: 1,
        item: None,
        handle: None,
        parent: None,
    };
    let mut told = async |what: &str| {
        timeout(PATIENCE, notices.recv()).await.unwrap_or_else(|_| panic!("{what}: no notice")).unwrap()
    };
    adapter.provision(&ProvisionJob { resource: job("res_1"), attempt: 0 }).await.unwrap();
    let file = dir.path().join("notice");
    std::fs::write(&file, "maintenance +600 disk\n").unwrap();
    let notice = told("maintenance").await;
    assert!(matches!(notice.kind, NoticeKind::Maintenance(_)), "{notice:?}");
    assert_eq!(notice.target, NoticeTarget::Resource("res_1".into()));
    assert_eq!((notice.pool.as_str(), notice.source, notice.detail.as_str()), ("here", "drop file", "disk"));
    // Nothing is made on a machine that is to go.
    let refused = adapter.provision(&ProvisionJob { resource: job("res_2"), attempt: 0 }).await.unwrap_err();
    assert_eq!((refused.blame, refused.reason), (Blame::Provider, "END_ANNOUNCED"), "{refused:?}");
    // On one that may go, it is; and it hears that too, and alone.
    std::fs::write(&file, "at-risk smoke\n").unwrap();
    assert_eq!(told("at risk").await.kind, NoticeKind::AtRisk);
    adapter.provision(&ProvisionJob { resource: job("res_2"), attempt: 0 }).await.unwrap();
    assert_eq!(told("the second").await.target, NoticeTarget::Resource("res_2".into()));
    adapter.destroy(&job("res_2")).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let notice = told("removed").await;
    assert_eq!((notice.kind, notice.target), (NoticeKind::Cancelled, NoticeTarget::Resource("res_1".into())));
    // No other notice came between the end and the next announcement.
    std::fs::write(&file, "at-risk smoke again\n").unwrap();
    let notice = told("the next").await;
    assert_eq!((notice.kind, notice.target), (NoticeKind::AtRisk, NoticeTarget::Resource("res_1".into())));
}
