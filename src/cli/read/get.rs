//! `get`: one lease, one fact a line.

use super::print_facts;
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::json::Json;
use crate::cli::text;
use crate::pb;
use clap::Args;

/// Arguments of `get` and `explain`.
#[derive(Args, Debug)]
pub(crate) struct OneLease {
    /// Id of the lease
    #[arg(value_name = "LEASE")]
    pub(super) lease: String,
}

/// Runs `get`.
pub(crate) async fn get(context: &Context, args: OneLease) -> Result<Exit, Failure> {
    let lease = context.connect().await?.get(&args.lease).await.map_err(|error| context.failure(error))?;
    if context.ui.json {
        context.ui.document(&lease.json())?
    } else {
        print_lease(context, &lease)?
    }
    Ok(Exit::Ok)
}

/// Prints a lease, one fact a line.
pub(crate) fn print_lease(context: &Context, lease: &pb::Lease) -> Result<(), Failure> {
    let mut rows: Vec<(&str, String)> = vec![("lease", lease.id.clone()), ("state", text::lease_state(lease).into())];
    let mut add = |name, value: String| {
        if !value.is_empty() && value != "-" {
            rows.push((name, value));
        }
    };
    add("wanted", text::selector(lease.selector.as_ref()));
    add("work", text::one_line(&lease.work));
    add("pool", lease.pool.clone());
    add("machine", text::machine(lease.access.as_ref()));
    add("resource", lease.resource_id.clone());
    if lease.fencing_token > 0 {
        add("token", lease.fencing_token.to_string());
    }
    add("holder", text::one_line(&lease.holder));
    add("request id", text::one_line(&lease.request_id));
    add("parameters", text::pairs(&lease.params));
    add("tags", text::pairs(&lease.tags));
    add("asked at", text::clock(lease.created_at.as_ref()));
    add("active at", text::clock(lease.active_at.as_ref()));
    if text::ended(lease) {
        add("ended at", text::clock(lease.ended_at.as_ref()));
    } else if lease.expires_at.is_some() {
        let ttl = text::span(lease.ttl.as_ref());
        add("expires in", format!("{} (TTL {ttl})", text::until(lease.expires_at.as_ref())));
        if lease.expires_at_most.is_some() {
            add(
                "at most",
                format!("{}, by a limit of its tenant or its rule", text::until(lease.expires_at_most.as_ref())),
            );
        }
    }
    if !text::ended(lease) {
        // While it lives, the lease has no TTL of its own.
        add("session", if lease.expires_at.is_none() { lease.session_id.clone() } else { String::new() });
        let doubt = lease.holder_doubt_since.as_ref();
        add(
            "holder in doubt",
            doubt.map(|at| format!("its stream is over since {}", text::clock(Some(at)))).unwrap_or_default(),
        );
    }
    add("ends at", text::clock(lease.ends_at.as_ref()));
    add("why", if lease.causes.is_empty() { text::why(lease) } else { String::new() });
    for cause in text::causes(&lease.causes) {
        add("cause", cause);
    }
    add("whose fault", lease.finding.as_ref().map(text::finding).unwrap_or_default());
    add("replacement", lease.replacement_id.clone());
    for (key, value) in lease.access_pairs() {
        add("access", format!("{key}={}", text::one_line(&value)));
    }
    // A secret is for programs, not for a screen that others see.
    add("private key", lease.private_key().map(|_| "(a secret; --json shows it)".to_string()).unwrap_or_default());
    add("credentials", lease.missing_credentials.as_ref().map(text::missing).unwrap_or_default());
    print_facts(context, &rows)
}
