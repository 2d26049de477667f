//! `ls`: leases, one a line.

use super::dash;
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::paging::{page_size, warn_of_more};
use crate::cli::{json, text};
use crate::pb;
use clap::{Args, ValueEnum};

/// Arguments of `ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Filter by pool; may be repeated
    #[arg(long, short, value_name = "POOL")]
    pool: Vec<String>,
    /// Filter by holder; may be repeated
    #[arg(long, value_name = "TEXT")]
    holder: Vec<String>,
    /// Filter by work; may be repeated
    #[arg(long, value_name = "KEY")]
    work: Vec<String>,
    /// Filter by state; may be repeated
    #[arg(long, value_enum, value_name = "STATE", conflicts_with = "all")]
    state: Vec<State>,
    /// Filter by resource
    #[arg(long, value_name = "RESOURCE", default_value = "")]
    resource: String,
    /// Include leases that have ended, until they are purged
    #[arg(long, short)]
    all: bool,
    /// Maximum number of rows
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// States of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Waiting in the queue.
    Queued,
    /// Its slot is being prepared.
    Preparing,
    /// Its holder may work.
    Active,
    /// Ended by its holder.
    Released,
    /// Its holder vanished.
    Expired,
    /// Ended against its holder's will.
    Broken,
    /// Withdrawn from the queue.
    Cancelled,
    /// Ended before it was granted.
    Failed,
}

impl State {
    const ALL: &[State] = &[
        State::Queued,
        State::Preparing,
        State::Active,
        State::Released,
        State::Expired,
        State::Broken,
        State::Cancelled,
        State::Failed,
    ];

    fn wire(self) -> i32 {
        let state = match self {
            State::Queued => pb::LeaseState::Queued,
            State::Preparing => pb::LeaseState::Preparing,
            State::Active => pb::LeaseState::Active,
            State::Released => pb::LeaseState::Released,
            State::Expired => pb::LeaseState::Expired,
            State::Broken => pb::LeaseState::Broken,
            State::Cancelled => pb::LeaseState::Cancelled,
            State::Failed => pb::LeaseState::Failed,
        };
        state.into()
    }
}

/// Runs `ls`.
pub(crate) async fn ls(context: &Context, args: LsArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let states: &[State] = if args.all { State::ALL } else { &args.state };
    let mut request = pb::ListRequest {
        pools: args.pool,
        holders: args.holder,
        works: args.work,
        states: states.iter().map(|state| state.wire()).collect(),
        resource_id: args.resource,
        ..pb::ListRequest::default()
    };
    let mut leases = Vec::new();
    let (revision, more) = loop {
        request.page_size = page_size(args.limit, leases.len());
        let page = client.list(request.clone()).await.map_err(|error| context.failure(error))?;
        leases.extend(page.leases);
        if page.next_page_token.is_empty() || leases.len() >= args.limit {
            break (page.revision, !page.next_page_token.is_empty());
        }
        request.page_token = page.next_page_token;
    };
    if context.ui.json {
        context.ui.document(&json::listed("leases", &leases, Some(revision)))?;
        return Ok(Exit::Ok);
    }
    let mut table =
        context.ui.table(&["LEASE", "STATE", "POOL", "RESOURCE", "MACHINE", "AGE", "EXPIRES", "HOLDER", "WHY"]);
    for lease in &leases {
        let pool = if lease.pool.is_empty() { text::selector(lease.selector.as_ref()) } else { lease.pool.clone() };
        table.add_row(vec![
            lease.id.as_str().into(),
            context.ui.state(text::lease_state(lease)),
            pool.into(),
            dash(&lease.resource_id).into(),
            text::machine(lease.access.as_ref()).into(),
            text::ago(lease.created_at.as_ref()).into(),
            if text::ended(lease) { "-".into() } else { text::until(lease.expires_at.as_ref()).into() },
            text::one_line(&lease.holder).into(),
            comfy_table::Cell::from(text::why(lease)),
        ]);
    }
    context.ui.print(table, "no leases")?;
    warn_of_more(context, more, args.limit);
    Ok(Exit::Ok)
}
