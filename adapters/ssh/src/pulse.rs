//! The pulse of a host with leases: a ping over the kept connection every half second, which wakes no other task.
//!
//! The probes of the broker go on as before, and hosts without leases have no pulse. A ping that is late has a further
//! connection tried beside it, at once. A host that shows no sign of life over either within the limit of its answers
//! (`answers.rs`) is reported as silent. That is a doubt, and never more: the check that follows decides.

use crate::connection::{Connection, Live, Running};
use crate::timeout::patiently;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// From one ping to the next on a host of which little is known.
const ACQUAINTANCE: Duration = Duration::from_millis(50);

/// Starts or stops the pulse of a host: it has leases, or none.
pub(crate) fn attend(connection: &Arc<Connection>, held: bool) {
    let mut pulse = connection.pulse();
    match (held, connection.endpoint.limits.pulse) {
        (true, Some(interval)) if pulse.is_none() => {
            let task = tokio::spawn(run(Arc::downgrade(connection), interval));
            *pulse = Some(Running(task.abort_handle()));
        }
        (true, Some(_)) => {}
        (false, _) | (_, None) => *pulse = None,
    }
}

async fn run(connection: Weak<Connection>, interval: Duration) {
    // Hosts that were leased together are not asked together.
    let mut wait = match connection.upgrade() {
        Some(connection) if connection.answers.are_known() => first_wait(&connection.endpoint.name, interval),
        Some(_) => Duration::ZERO,
        None => return,
    };
    let mut silent_since: Option<Instant> = None;
    loop {
        let slept = Instant::now();
        sleep(wait).await;
        let overslept = slept.elapsed().saturating_sub(wait);
        let Some(connection) = connection.upgrade() else { return };
        connection.surroundings.overslept(overslept);
        let begun = Instant::now();
        // One that ended has said so, and the check of the broker makes a new one.
        if let Some(live) = connection.open_kept() {
            // Once is enough. The check asks on.
            match silent_since {
                Some(since) if !connection.shown.since(since) => {}
                _ => silent_since = look(&connection, &live, begun).await,
            }
        }
        let next = if connection.answers.are_known() { interval } else { interval.min(ACQUAINTANCE) };
        wait = next.saturating_sub(begun.elapsed()).max(next / 10);
    }
}

fn first_wait(name: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    interval.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}

/// Asks once, and reports a host that is silent. Returns since when it is.
async fn look(connection: &Arc<Connection>, live: &Arc<Live>, begun: Instant) -> Option<Instant> {
    let silence = connection.silence();
    let ping = live.ping();
    tokio::pin!(ping);
    if let Some(open) = patiently(silence.late, &mut ping).await {
        if open {
            connection.answered(begun);
        }
        return None;
    }
    live.set_owes(true);
    let others = connection.fresh();
    tokio::pin!(others);
    let rest = silence.doubt.saturating_sub(silence.late);
    let sign = async {
        tokio::select! {
            open = &mut ping => {
                if open {
                    live.set_owes(false);
                    connection.answered(begun);
                }
            }
            // It answers, or it says why it does not let us in.
            () = async {
                match others.await {
                    Err(error) if error.unreachable_reason().is_some() => std::future::pending().await,
                    Ok(_) | Err(_) => {}
                }
            } => connection.answers.note(begun.elapsed(), &connection.surroundings),
        }
    };
    if patiently(rest, sign).await.is_some() {
        return None;
    }
    if connection.shown.since(begun) || !live.is_open() {
        connection.answers.note(begun.elapsed(), &connection.surroundings);
        return None;
    }
    let detail = format!(
        "{} has shown no sign of life for {} ms, over the kept connection and a new one",
        connection.endpoint.place(),
        begun.elapsed().as_millis()
    );
    if let Some(reporter) = &connection.reporter {
        tracing::info!(host = connection.endpoint.name, "{detail}");
        reporter.silent(&connection.endpoint.name, detail).await;
    }
    Some(begun)
}
