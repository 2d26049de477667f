//! Waiting in line, and saying why.

use super::signals::{Signal, Signals};
use crate::cli::connect::Context;
use crate::cli::text;
use crate::client::{Client, LeaseGuard, LeaseStatus, Lost};
use crate::likely;
use crate::pb;
use std::sync::Arc;
use std::time::Duration;

/// How often we ask why.
const ASK: Duration = Duration::from_secs(1);

/// The result of a wait.
pub(crate) enum Waited {
    /// The holder may work.
    Active(Arc<pb::Lease>),
    /// It ended before.
    Lost(Lost),
    /// We were asked to stop.
    Interrupted(Signal),
}

/// Waits until the lease is active.
pub(crate) async fn active(context: &Context, client: &Client, guard: &LeaseGuard, signals: &mut Signals) -> Waited {
    let ui = context.ui;
    let mut spinner = ui.spinner();
    let mut status = guard.status();
    let mut ask = tokio::time::interval(ASK);
    // The first tick comes at once, and most leases are active before the answer would be of use.
    ask.reset();
    loop {
        let now = status.borrow_and_update().clone();
        match now {
            LeaseStatus::Active(lease) | LeaseStatus::Doubt(lease) | LeaseStatus::EndsAt(lease, _) => {
                return Waited::Active(lease);
            }
            LeaseStatus::Lost(lost) => return Waited::Lost(lost),
            _ => {}
        }
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() {
                    return Waited::Lost(Lost::NoContact(guard.lease()));
                }
            }
            signal = signals.recv() => return Waited::Interrupted(signal),
            _ = ask.tick() => {
                // An answer that does not come must not hold up the news.
                let reason = tokio::select! {
                    reason = reason(client, guard) => reason,
                    _ = status.changed() => { status.mark_changed(); continue }
                    signal = signals.recv() => return Waited::Interrupted(signal),
                };
                spinner.say(&ui, &reason);
            }
        }
    }
}

async fn reason(client: &Client, guard: &LeaseGuard) -> String {
    let lease = guard.lease();
    match client.explain(guard.id()).await {
        Ok(said) => {
            let place = if said.position > 1 { format!(" (place {} in line)", said.position) } else { String::new() };
            let start = said.likely_start.as_ref().map(|start| format!("; starts {}, likely", likely::range(start)));
            format!("waiting: {}{place}{}", text::one_line(&said.summary), start.unwrap_or_default())
        }
        Err(error) => format!("waiting ({}): {error}", text::lease_state(&lease).to_lowercase()),
    }
}
