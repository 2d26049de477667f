//! A pool of real sshd's: the settings of its hosts, their jobs, and a holder's way in.
//!
//! Only the tests of this crate use it. Other crates take in `mod.rs`, which knows no adapter.
#![allow(
    dead_code,
    unreachable_pub,
    unused_macros,
    clippy::unwrap_used,
    reason = "each test binary uses its part of it, in a module of its own"
)]

use crate::support::Sshd;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wharfinger_adapter::{
    Access, Adapter, HolderWork, Notice, NoticeKind, PrepareJob, ProvisionJob, ResourceJob, Shell,
};
use wharfinger_ssh::{Config, Host, KeySource, SshAdapter, Target, connect_shell};

/// Maximum time of a condition on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Starts an sshd with these options, or ends the test where there is none.
macro_rules! sshd_or_skip {
    () => {
        sshd_or_skip!("")
    };
    ($options:expr) => {{
        if $crate::support::skip(std::thread::current().name().unwrap_or("?")) {
            return;
        }
        $crate::support::Sshd::start_with($options)
    }};
}

/// The same, where the test needs nftables too.
macro_rules! sshd_and_nft_or_skip {
    () => {{
        let name = std::thread::current().name().unwrap_or("?").to_string();
        if $crate::support::skip(&name) || $crate::support::nft::skip(&name) {
            return;
        }
        $crate::support::Sshd::start()
    }};
}

/// An entry of the inventory that leads to this sshd.
pub fn host(sshd: &Sshd, name: &str) -> Host {
    Host {
        name: name.into(),
        address: sshd.address.to_string(),
        port: Some(sshd.port),
        user: Some(sshd.user.clone()),
        key: Some(sshd.key()),
        host_key: sshd.host_key(),
        labels: BTreeMap::new(),
        slots: None,
        enabled: true,
        disabled_reason: None,
        proxy_command: None,
    }
}

/// The settings of a pool with these hosts. The work directory is in the folder of this sshd.
pub fn config(sshd: &Sshd, hosts: Vec<Host>) -> Config {
    Config {
        work_dir: sshd.folder().join("work").to_string_lossy().into_owned(),
        min_free_disk_mb: 1,
        hosts,
        ..Config::default()
    }
}

/// The adapter of the pool `farm` with one host, `alpha`, after a change of its settings.
pub fn adapter_for(sshd: &Sshd, change: impl FnOnce(&mut Config)) -> SshAdapter {
    let mut config = config(sshd, vec![host(sshd, "alpha")]);
    change(&mut config);
    SshAdapter::new("farm".into(), config).unwrap()
}

/// The adapter of the pool `farm` with one host, `alpha`.
pub fn adapter(sshd: &Sshd) -> SshAdapter {
    adapter_for(sshd, |_| ())
}

/// The job of a resource on an entry of the inventory of a pool.
pub fn job_of(pool: &str, item: &str, resource: &str) -> ResourceJob {
    ResourceJob {
        pool: pool.into(),
        resource: resource.into(),
        op: 1,
        item: Some(item.into()),
        handle: None,
        parent: None,
    }
}

/// The job of a resource on `alpha`.
pub fn job(resource: &str) -> ResourceJob {
    job_of("farm", "alpha", resource)
}

/// Makes a resource. Returns its job with the handle, and the access of its holders.
pub async fn made(adapter: &dyn Adapter, mut job: ResourceJob) -> (ResourceJob, Access) {
    let made = adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap();
    job.handle = Some(made.handle);
    (job, made.access)
}

/// Prepares slot 0 for a lease.
pub async fn prepared(adapter: &dyn Adapter, job: &ResourceJob, lease: &str, token: u64) -> Access {
    let work = HolderWork { lease: lease.into(), slot: 0, token, ..HolderWork::default() };
    adapter.prepare(&PrepareJob { resource: job.clone(), work, child: None }).await.unwrap().access
}

/// A holder's access to this sshd.
pub fn target(sshd: &Sshd) -> Target {
    Target {
        name: "alpha".into(),
        address: sshd.address.to_string(),
        port: sshd.port,
        user: sshd.user.clone(),
        key: KeySource::File(sshd.key()),
        host_key: sshd.host_key(),
        proxy_command: None,
    }
}

/// A holder's own shell, which shares no connection with the adapter.
pub fn holder(sshd: &Sshd) -> Arc<dyn Shell> {
    connect_shell(&target(sshd)).unwrap()
}

/// The notices of an adapter, without the first ones of the watch on a host: that nothing is announced.
pub fn subscribed(adapter: &SshAdapter) -> mpsc::Receiver<Notice> {
    let (tx, mut all) = mpsc::channel(256);
    let (pass_on, rx) = mpsc::channel(256);
    adapter.subscribe(tx);
    tokio::spawn(async move {
        while let Some(notice) = all.recv().await {
            if notice.kind != NoticeKind::Cancelled && pass_on.send(notice).await.is_err() {
                return;
            }
        }
    });
    rx
}

/// Waits for the next notice.
pub async fn next_notice(notices: &mut mpsc::Receiver<Notice>) -> Notice {
    tokio::time::timeout(PATIENCE, notices.recv()).await.expect("a notice in time").expect("a notice")
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
