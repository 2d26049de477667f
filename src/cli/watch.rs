//! `watch`: a line a change, over restarts of the server.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::Json;
use super::run::signals::Signals;
use super::select::time;
use super::text;
use crate::client::Watched;
use crate::pb;
use clap::Args;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// Only these leases
    #[arg(value_name = "LEASE")]
    leases: Vec<String>,
    /// Only of this pool; may be repeated
    #[arg(long, short, value_name = "POOL")]
    pool: Vec<String>,
    /// Only of this holder; may be repeated
    #[arg(long, value_name = "TEXT")]
    holder: Vec<String>,
    /// Go on after this revision; without it, begin with the current state
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    from: u64,
    /// Begin with ended leases too, as long as they are kept
    #[arg(long, short)]
    all: bool,
    /// Stop when the leases named, or all that were seen, have ended
    #[arg(long)]
    until_ended: bool,
    /// Stop after this time
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    stop_after: Option<Duration>,
}

/// Runs `watch`.
pub(crate) async fn watch(context: &Context, args: WatchArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let client = context.connect_patient().await?;
    let mut stream = client.watch(pb::WatchRequest {
        lease_ids: args.leases.clone(),
        holders: args.holder,
        pools: args.pool,
        from_revision: args.from,
        include_ended: args.all || (args.until_ended && !args.leases.is_empty()),
        ..pb::WatchRequest::default()
    });
    let mut tally = Tally { named: args.leases.len(), ..Tally::default() };
    let stop_after = args.stop_after;
    let stop = async move {
        match stop_after {
            Some(span) => tokio::time::sleep(span).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stop);
    loop {
        let watched = tokio::select! {
            watched = stream.next() => watched.map_err(|error| context.failure(error))?,
            signal = signals.recv() => return Ok(Exit::Command(128 + signal.number())),
            () = &mut stop => return Ok(Exit::Ok),
        };
        match watched {
            Watched::Lease(lease) => {
                tell(context, &lease)?;
                tally.see(&lease);
            }
            Watched::Synced { revision } => {
                tally.synced = true;
                if context.ui.json {
                    context.ui.record(&json!({ "revision": revision, "synced": true }))?;
                }
            }
            Watched::Bookmark { revision } => {
                if context.ui.json {
                    context.ui.record(&json!({ "revision": revision }))?;
                }
            }
            Watched::Resync => {
                tally.synced = false;
                if context.ui.json {
                    context.ui.record(&json!({ "resync": true }))?;
                } else {
                    context.ui.warn("what came meanwhile is no longer kept; the current state follows");
                }
            }
        }
        if args.until_ended && tally.done() {
            return Ok(Exit::Ok);
        }
    }
}

/// Which of the leases that were seen are still to end.
#[derive(Debug, Default)]
struct Tally {
    named: usize,
    live: BTreeSet<String>,
    ended: BTreeSet<String>,
    synced: bool,
}

impl Tally {
    fn see(&mut self, lease: &pb::Lease) {
        if text::ended(lease) {
            self.live.remove(&lease.id);
            self.ended.insert(lease.id.clone());
        } else {
            self.live.insert(lease.id.clone());
        }
    }

    fn done(&self) -> bool {
        if self.named > 0 { self.ended.len() >= self.named } else { self.synced && self.live.is_empty() }
    }
}

fn tell(context: &Context, lease: &pb::Lease) -> Result<(), Failure> {
    let ui = context.ui;
    if ui.json {
        return ui.record(&json!({ "revision": lease.revision, "lease": lease.json() }));
    }
    let place = match (lease.pool.is_empty(), lease.resource_id.is_empty()) {
        (true, _) => text::selector(lease.selector.as_ref()),
        (false, true) => lease.pool.clone(),
        (false, false) => format!("{}/{}", lease.pool, lease.resource_id),
    };
    // The time of arrival: the lease itself says when it became active and when it ended, not when it last changed.
    let mut line = format!("{} {} {} {place}", text::clock_now(), lease.id, ui.state_text(text::lease_state(lease)));
    let holder = text::one_line(&lease.holder);
    if !holder.is_empty() {
        line.push_str(&format!("  [{holder}]"));
    }
    let why = text::why(lease);
    if !why.is_empty() {
        line.push_str(&format!("  {why}"));
    }
    ui.out(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: &str, state: pb::LeaseState) -> pb::Lease {
        let at = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let ended_at = at.filter(|_| state != pb::LeaseState::Active);
        pb::Lease { id: id.into(), state: state.into(), ended_at, ..pb::Lease::default() }
    }

    #[test]
    fn until_ended_waits_for_those_that_are_named() {
        let mut tally = Tally { named: 2, ..Tally::default() };
        tally.see(&lease("a", pb::LeaseState::Released));
        assert!(!tally.done());
        tally.see(&lease("b", pb::LeaseState::Active));
        assert!(!tally.done());
        tally.see(&lease("b", pb::LeaseState::Broken));
        assert!(tally.done());
    }

    #[test]
    fn until_ended_waits_for_all_that_were_seen() {
        let mut tally = Tally::default();
        tally.see(&lease("a", pb::LeaseState::Active));
        tally.synced = true;
        assert!(!tally.done());
        tally.see(&lease("a", pb::LeaseState::Expired));
        assert!(tally.done());
    }
}
