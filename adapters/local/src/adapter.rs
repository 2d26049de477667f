//! The calls of the adapter.

use crate::config::Config;
use crate::notices::Announcements;
use crate::probe::{self, LIMIT};
use crate::shell::LocalShell;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wharfinger_adapter::{
    Access, Adapter, CleanJob, Failure, NoticeSink, PrepareJob, Prepared, ProvisionJob, Provisioned, ResourceJob,
    Shell, Traits, Verdict, access,
};
use wharfinger_host::check::{self, Needs};
use wharfinger_host::{fence, reaper};

/// Leases the broker's machine. See the crate's documentation.
#[derive(Clone, Debug)]
pub struct LocalAdapter {
    pool: String,
    config: Config,
    announcements: Arc<Announcements>,
}

/// The record of a resource in the broker.
#[derive(Debug, Serialize, Deserialize)]
struct Handle {
    boot_id: String,
    path: String,
    /// Whether its slots had control groups.
    #[serde(default)]
    contained: bool,
}

impl LocalAdapter {
    /// Returns the adapter of a pool. [`Config::problems`] checks the settings.
    pub fn new(pool: String, config: Config) -> Self {
        let announcements = Arc::new(Announcements::new(pool.clone(), config.root.join("notice")));
        Self { pool, config, announcements }
    }

    /// Returns the needs of the resource. Its scratch directory stays where it was made, whatever `root` is now.
    fn needs(&self, job: &ResourceJob) -> Needs {
        let needs = probe::scratch(&self.config, &job.resource);
        match handle(job) {
            Ok(handle) => Needs { contained: handle.contained, scratch: handle.path, ..needs },
            Err(_) => needs,
        }
    }

    /// The name of the machine in messages.
    fn host() -> String {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        if name.trim().is_empty() { "localhost".to_string() } else { name.trim().to_string() }
    }
}

fn handle(job: &ResourceJob) -> Result<Handle, Failure> {
    let text =
        job.handle.as_deref().ok_or_else(|| Failure::bug("HANDLE_MISSING", "the job names a host without a record"))?;
    serde_json::from_str(text).map_err(|error| Failure::bug("HANDLE_UNREADABLE", format!("handle {text:?}: {error}")))
}

#[async_trait]
impl Adapter for LocalAdapter {
    fn traits(&self) -> Traits {
        Config::TRAITS
    }

    async fn provision(&self, job: &ProvisionJob) -> Result<Provisioned, Failure> {
        let needs = self.needs(&job.resource);
        let host = Self::host();
        self.announcements.no_end(&host).await?;
        let facts = check::prove(&LocalShell, &host, &needs, LIMIT).await?;
        tracing::debug!(pool = self.pool, resource = job.resource.resource, "local host is ready");
        let handle = Handle { boot_id: facts.boot.id.clone(), path: needs.scratch.clone(), contained: facts.contained };
        let handle = serde_json::to_string(&handle).map_err(|e| Failure::bug("HANDLE_UNWRITABLE", e.to_string()))?;
        let mut access = Access::from(
            [
                (access::TRANSPORT, "local".to_string()),
                (access::ADDRESS, host),
                (access::USER, facts.user),
                (access::PATH, needs.scratch.clone()),
                (access::BOOT_ID, facts.boot.id),
            ]
            .map(|(key, value)| (key.to_string(), value)),
        );
        access.extend(check::contained_access(facts.contained, &needs.containment.limits));
        self.announcements.made(&job.resource.resource);
        Ok(Provisioned { handle, access, labels: facts.labels })
    }

    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure> {
        if job.child.is_some() {
            return Ok(Prepared::default());
        }
        let needs = self.needs(&job.resource);
        let fence = fence::path(&needs.scratch, job.work.slot);
        fence::set(&LocalShell, &fence, job.work.token, &job.work.lease, &needs.slot()).await?;
        let mut access = Access::from([(access::FENCE.to_string(), fence)]);
        access.extend(check::contained_access(needs.contained, &needs.containment.limits));
        Ok(Prepared { access, ..Prepared::default() })
    }

    async fn clean(&self, job: &CleanJob) -> Result<(), Failure> {
        let fence = fence::path(&self.needs(&job.resource).scratch, job.work.slot);
        let reaped = reaper::end_lease(&LocalShell, &job.work.lease, &fence, job.work.token).await?;
        let (lease, killed) = (&job.work.lease, reaped.killed);
        if killed > 0 {
            tracing::info!(pool = self.pool, lease, killed, "ended the processes that a lease left");
        }
        for hit in &reaped.hits {
            tracing::info!(pool = self.pool, lease, "{hit}");
        }
        Ok(())
    }

    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        self.announcements.made(&job.resource);
        probe::check(&LocalShell, &Self::host(), &handle(job)?.boot_id, &self.needs(job)).await
    }

    async fn probe(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        // After a restart the broker probes the resource without a provision.
        self.announcements.made(&job.resource);
        probe::probe(&Self::host(), &handle(job)?.boot_id, &self.needs(job)).await
    }

    async fn repair(&self, job: &ResourceJob) -> Result<(), Failure> {
        check::prove(&LocalShell, &Self::host(), &self.needs(job), LIMIT).await.map(|_| ())
    }

    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure> {
        self.announcements.gone(&job.resource);
        // No time limit: a large tree may take minutes. Dropping the call ends the removal.
        check::remove_tree(&LocalShell, &self.needs(job).scratch, None).await
    }

    async fn shell(&self, _job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        Ok(Arc::new(LocalShell))
    }

    fn subscribe(&self, sink: NoticeSink) {
        self.announcements.watch(sink);
    }
}
