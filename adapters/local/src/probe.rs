//! Checks and probes the machine.

use crate::config::Config;
use std::path::Path;
use std::time::Duration;
use wharfinger_adapter::{Failure, Shell, Verdict};
use wharfinger_host::check::{self, Boot, Needs};

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
    let (host, boot_id, needs) = (host.to_string(), boot_id.to_string(), needs.clone());
    let look = tokio::task::spawn_blocking(move || {
        let now = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let now = now.trim();
        if !boot_id.is_empty() && !now.is_empty() && now != boot_id {
            let detail = format!("host {host} has boot id {now}; it had {boot_id} when it was made");
            return Verdict::Gone { reason: "REBOOTED", detail };
        }
        if !Path::new(&needs.scratch).is_dir() {
            let detail = format!("host {host}: directory {} is missing", needs.scratch);
            return Verdict::Mangled { repairable: true, reason: "SCRATCH_MISSING", detail };
        }
        match rustix::fs::statvfs(&needs.scratch) {
            Ok(disk) if disk.f_bavail.saturating_mul(disk.f_frsize) >> 20 < needs.free_disk_mb => Verdict::Mangled {
                repairable: false,
                reason: "DISK_FULL",
                detail: format!(
                    "host {host} has less than min_free_disk_mb = {} MiB free under {}",
                    needs.free_disk_mb, needs.scratch
                ),
            },
            Ok(_) | Err(_) => Verdict::Healthy,
        }
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
