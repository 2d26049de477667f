//! Checks and probes the machine.

use crate::config::Config;
use std::path::Path;
use std::time::Duration;
use wharfinger_adapter::{Failure, Shell, Verdict};
use wharfinger_host::check::{self, Boot, Facts, Needs};

/// Maximum time of a check or probe. No network is in between, so a longer one hangs (on a dead NFS mount below `root`).
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Checks the boot id, the scratch directory (present and writable) and the free space, by commands.
pub(crate) async fn check(shell: &dyn Shell, host: &str, boot_id: &str, needs: &Needs) -> Result<Verdict, Failure> {
    let facts = check::facts(shell, needs, false, LIMIT).await?;
    let before = Boot { id: boot_id.to_string(), ..Boot::default() };
    Ok(check::examine(host, &facts, &before, needs))
}

/// Checks the boot id, the scratch directory and the free space, without a process.
pub(crate) async fn probe(host: &str, boot_id: &str, needs: &Needs) -> Result<Verdict, Failure> {
    let (host, needs) = (host.to_string(), needs.clone());
    let before = Boot { id: boot_id.to_string(), ..Boot::default() };
    let look = tokio::task::spawn_blocking(move || {
        let now = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let free = rustix::fs::statvfs(&needs.scratch).ok();
        let facts = Facts {
            boot: Boot { id: now.trim().to_string(), ..Boot::default() },
            free_disk_mb: free.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >> 20),
            scratch_exists: Path::new(&needs.scratch).is_dir(),
            ..Facts::default()
        };
        check::glance(&host, &facts, &before, &needs)
    });
    match tokio::time::timeout(LIMIT, look).await {
        Ok(Ok(verdict)) => Ok(verdict),
        Ok(Err(error)) => Err(Failure::bug("PROBE_PANICKED", error.to_string())),
        Err(_) => Err(Failure::resource(
            "TIMEOUT",
            "the file system of the scratch directory does not answer; look for a dead mount below root",
        )),
    }
}

/// Returns the scratch directory of a resource and the free space that it needs.
pub(crate) fn scratch(config: &Config, resource: &str) -> Needs {
    let scratch = config.root.join("hosts").join(resource).to_string_lossy().into_owned();
    Needs { scratch, free_disk_mb: config.min_free_disk_mb, containment: config.containment, contained: false }
}
