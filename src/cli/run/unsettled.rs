//! Leases whose host was lost to this holder under its command. The server decides what became of the host, and ends the lease as
//! broken; meanwhile the command runs elsewhere.

use super::record::Record;
use crate::cli::text;
use crate::cli::ui::Ui;
use crate::client::{ClientError, LeaseGuard, LeaseStatus, Lost};
use crate::pb;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long the server may take to decide. A silent host is given up within 15 seconds.
const UNDECIDED: Duration = Duration::from_secs(30);
/// How long that may keep a command that has ended from being reported.
const AT_END: Duration = Duration::from_secs(15);

/// A lease that ends when the server has decided.
pub(super) struct Unsettled {
    /// The command has ended: the lease is not kept for long. `true`: it may be kept while its resource is in doubt.
    finish: oneshot::Sender<bool>,
    task: JoinHandle<()>,
}

impl Unsettled {
    /// Keeps a lease until the server has decided. `on`: its machine and resource. `why`: what was seen from here.
    pub(super) fn keep(ui: Ui, record: Record, guard: LeaseGuard, on: String, why: String) -> Self {
        let (finish, finished) = oneshot::channel();
        Self { finish, task: tokio::spawn(settle(ui, record, guard, on, why, finished)) }
    }

    /// Ends the lease, if the server has not done so.
    pub(super) async fn finish(self, patient: bool) {
        let _ = self.finish.send(patient);
        let _ = self.task.await;
    }
}

async fn settle(ui: Ui, record: Record, guard: LeaseGuard, on: String, why: String, finished: oneshot::Receiver<bool>) {
    let lost = tokio::select! {
        lost = guard.broken() => Some(lost),
        () = tokio::time::sleep(UNDECIDED) => None,
        patient = finished => {
            if patient.unwrap_or(false) { while_in_doubt(&guard).await } else { None }
        }
    };
    let id = guard.id().to_string();
    if let Some(lost) = lost {
        record.lost(&lost);
        tell(ui, &on, &lost);
        return;
    }
    match guard.release(pb::Outcome::Abandoned, &why).await {
        Ok(lease) => {
            record.released(&lease);
            ui.event(&format!("lease {id} {}: {}", text::lease_state(&lease), text::outcome(lease.outcome())));
        }
        // It ended in the same moment in another way.
        Err(ClientError::State(_) | ClientError::NotFound(_)) => {}
        Err(error) => ui.warn(&format!("lease {id} was not released and ends by its TTL: {error}")),
    }
}

/// Waits for the end of the lease as long as its resource is in doubt. The news of a doubt may be on its way.
async fn while_in_doubt(guard: &LeaseGuard) -> Option<Lost> {
    let decided = async {
        let mut status = guard.status();
        let news = tokio::time::sleep(super::NEWS);
        tokio::pin!(news);
        loop {
            let now = status.borrow_and_update().clone();
            match now {
                LeaseStatus::Lost(lost) => return Some(lost),
                LeaseStatus::Doubt(_) => {}
                // A state that a later client may have is no doubt.
                _ if news.is_elapsed() => return None,
                _ => {}
            }
            tokio::select! {
                changed = status.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = &mut news, if !news.is_elapsed() => {}
            }
        }
    };
    tokio::time::timeout(AT_END, decided).await.ok().flatten()
}

/// Says how a lease was lost, and why. `on`: its machine and resource; empty if it had none.
pub(super) fn tell(ui: Ui, on: &str, lost: &Lost) {
    let lease = lost.lease();
    let on = if on.is_empty() { String::new() } else { format!(" on {on}") };
    match lost {
        Lost::Ended(lease) => ui.event(&format!("lease {}{on} {}", lease.id, text::lease_state(lease))),
        _ => ui.event(&lost.to_string()),
    }
    for cause in text::causes(&lease.causes) {
        ui.event(&format!("  {cause}"));
    }
}
