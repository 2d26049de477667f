//! `lease`, `renew`, `release`: what a holder does, one call a command.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::{self, Json};
use super::read;
use super::run::signals::Signals;
use super::select::{Wanted, time, wire};
use super::text;
use super::ui::Spinner;
use crate::client::{LeaseGuard, LeaseStatus, Lost};
use crate::pb;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Arguments of `lease`.
#[derive(Args, Debug)]
pub(crate) struct LeaseArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// How many, all or nothing
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..), help_heading = "How")]
    count: i32,
    /// Wait so long for it to be active; the lease stays in line afterwards
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,
    /// When it breaks, queue another in its stead at once; the broken one names it
    #[arg(long, help_heading = "How")]
    replace: bool,
    /// Stay, renew it until interrupted, then release it
    #[arg(long, conflicts_with_all = ["wait", "count"])]
    keep: bool,
}

/// Arguments of `renew`.
#[derive(Args, Debug)]
pub(crate) struct RenewArgs {
    /// Which; several in one commit
    #[arg(value_name = "LEASE", env = "WHARFINGER_LEASE", required = true)]
    leases: Vec<String>,
    /// From now on; the TTL that was asked for if absent
    #[arg(long, value_name = "TIME", value_parser = time)]
    ttl: Option<Duration>,
}

/// How the work went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outcome {
    /// The work succeeded.
    Ok,
    /// It failed: the resource is checked.
    Failed,
    /// The resource is mangled: it is repaired or replaced.
    Tainted,
    /// The work was cut short, or its end is unknown: the resource is checked, and nothing is counted.
    Abandoned,
}

impl From<Outcome> for pb::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => pb::Outcome::Ok,
            Outcome::Failed => pb::Outcome::Failed,
            Outcome::Tainted => pb::Outcome::Tainted,
            Outcome::Abandoned => pb::Outcome::Abandoned,
        }
    }
}

/// Arguments of `release`.
#[derive(Args, Debug)]
pub(crate) struct ReleaseArgs {
    /// Which
    #[arg(value_name = "LEASE", env = "WHARFINGER_LEASE")]
    lease: String,
    /// How the work went
    #[arg(long, value_enum, default_value_t = Outcome::Ok)]
    outcome: Outcome,
    /// In words
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Keep the resource as the work left it for so long, to be looked at; the pool has a limit
    #[arg(long, value_name = "TIME", value_parser = time)]
    hold: Option<Duration>,
}

/// Arguments of `report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Which
    #[arg(value_name = "LEASE", env = "WHARFINGER_LEASE")]
    lease: String,
    /// Description of the fault
    #[arg(value_name = "NOTE", default_value = "")]
    note: String,
    /// Report that the resource cannot be reached from here: that is no evidence against it, and a login by the server decides
    #[arg(long)]
    unreached: bool,
}

/// The longest that one call may wait; the server's limit.
const ONE_WAIT: Duration = Duration::from_secs(300);

/// Asks for leases and prints them.
pub(crate) async fn lease(context: &Context, args: LeaseArgs) -> Result<Exit, Failure> {
    let mut request = args.wanted.request();
    request.count = args.count;
    request.replace = args.replace;
    if args.keep {
        return keep(context, request).await;
    }
    let client = context.connect().await?;
    let end = tokio::time::Instant::now() + args.wait.unwrap_or_default();
    let leases = loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now()).min(ONE_WAIT);
        request.wait = if left.is_zero() { None } else { wire(left) };
        let answer = client.lease(request.clone()).await.map_err(|error| context.failure(error))?;
        let settled = answer.leases.iter().all(|l| l.may_work() || text::ended(l));
        if settled || left.is_zero() || left < ONE_WAIT {
            break answer.leases;
        }
    };
    if context.ui.json {
        context.ui.document(&json::leases(&leases))?;
    } else {
        for lease in &leases {
            read::print_lease(context, lease)?;
        }
    }
    Ok(leases.iter().find(|lease| text::ended(lease)).map_or(Exit::Ok, exit_of_ended))
}

/// The exit code for a lease that ended before its holder released it.
pub(crate) fn exit_of_ended(lease: &pb::Lease) -> Exit {
    match (lease.state(), lease.fail_reason()) {
        (pb::LeaseState::Failed, pb::FailReason::Request) => Exit::BadData,
        (pb::LeaseState::Failed, pb::FailReason::WaitDeadline) => Exit::Unavailable,
        _ => Exit::Lost,
    }
}

/// Leases, renews until interrupted, releases.
async fn keep(context: &Context, request: pb::LeaseRequest) -> Result<Exit, Failure> {
    let ui = context.ui;
    let mut signals = Signals::listen()?;
    let client = context.connect_patient().await?;
    let guard = client.acquire(request).await.map_err(|error| context.failure(error))?;
    let mut spinner = ui.spinner();
    let mut spinning = true;
    let mut status = guard.status();
    status.mark_changed();
    let mut said = String::new();
    loop {
        tokio::select! {
            signal = signals.recv() => {
                drop(spinner);
                let id = guard.id().to_string();
                guard.release(pb::Outcome::Ok, "its keeper was interrupted").await.map_err(|error| context.failure(error))?;
                ui.event(&format!("lease {id} released ({})", signal.name()));
                return Ok(Exit::Ok);
            }
            changed = status.changed() => {
                if changed.is_err() {
                    return Err(Failure::new(Exit::Internal, "the lease's keeper ended"));
                }
                let now = status.borrow_and_update().clone();
                if !matches!(now, LeaseStatus::Waiting(_)) && spinning {
                    spinner = Spinner::none();
                    spinning = false;
                }
                match now {
                    LeaseStatus::Active(lease) | LeaseStatus::Doubt(lease) | LeaseStatus::EndsAt(lease, _) => {
                        if said.is_empty() && !ui.json {
                            read::print_lease(context, &lease)?;
                        } else if ui.json && said != lease.revision.to_string() {
                            ui.record(&lease.json())?;
                        } else if !text::why(&lease).is_empty() {
                            ui.event(&format!("lease {}: {}", lease.id, text::why(&lease)));
                        }
                        said = lease.revision.to_string();
                    }
                    LeaseStatus::Lost(lost) => return Err(lost_failure(&lost)),
                    _ => spinner.say(&ui, &waiting(&guard)),
                }
            }
        }
    }
}

fn waiting(guard: &LeaseGuard) -> String {
    let lease = guard.lease();
    let trouble =
        if lease.trouble.is_empty() { String::new() } else { format!(": {}", text::one_line(&lease.trouble)) };
    format!("lease {} is {}{trouble}", lease.id, text::lease_state(&lease).to_lowercase())
}

/// A lease that is lost, as an error with its cause chain.
pub(crate) fn lost_failure(lost: &Lost) -> Failure {
    let lease = lost.lease();
    match lost {
        Lost::Ended(_) => {
            let state = text::lease_state(lease);
            let mut failure = Failure::new(exit_of_ended(lease), format!("lease {} is {state}", lease.id));
            if lease.causes.is_empty() {
                let why = text::why(lease);
                if !why.is_empty() {
                    failure = failure.detail(why);
                }
            }
            for cause in text::causes(&lease.causes) {
                failure = failure.detail(cause);
            }
            failure
        }
        _ => Failure::new(Exit::Lost, lost.to_string()),
    }
}

/// Renews once.
pub(crate) async fn renew(context: &Context, args: RenewArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let not_renewed = |error| {
        let mut failure = context.failure(error);
        if failure.reason.as_deref() == Some("LEASE_ENDED") {
            // For a holder's script this is the point: the lease is lost.
            failure.exit = Exit::Lost;
        }
        failure
    };
    let line = |lease: &pb::Lease| format!("{} expires in {}", lease.id, text::until(lease.expires_at.as_ref()));
    if let [id] = &*args.leases {
        let lease = client.renew(id, args.ttl).await.map_err(not_renewed)?;
        if context.ui.json {
            context.ui.document(&lease.json())?;
        } else {
            context.ui.out(&line(&lease))?;
        }
        return Ok(Exit::Ok);
    }
    let results = client.renew_all(&args.leases, args.ttl).await.map_err(not_renewed)?;
    let (mut renewed, mut failed) = (Vec::new(), Vec::new());
    for (id, result) in args.leases.iter().zip(results) {
        match result {
            Ok(lease) => renewed.push(lease),
            Err(error) => failed.push((id, not_renewed(error))),
        }
    }
    if context.ui.json {
        context.ui.document(&json::leases(&renewed))?;
    } else {
        for lease in &renewed {
            context.ui.out(&line(lease))?;
        }
    }
    // The first failure is that of the command; the others are details of it.
    let others: Vec<String> = failed.iter().skip(1).map(|(id, failure)| format!("{id}: {}", failure.message)).collect();
    match failed.into_iter().next() {
        None => Ok(Exit::Ok),
        Some((_, failure)) => Err(others.into_iter().fold(failure, Failure::detail)),
    }
}

/// Runs `release`.
pub(crate) async fn release(context: &Context, args: ReleaseArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let outcome: pb::Outcome = args.outcome.into();
    let hold = args.hold.and_then(wire);
    let request = pb::ReleaseRequest { lease_id: args.lease, outcome: outcome.into(), note: args.note, hold };
    let answer = client.release_with(request).await.map_err(|error| context.failure(error))?;
    if context.ui.json {
        context.ui.document(&json::leases(&answer.leases))?;
        return Ok(Exit::Ok);
    }
    for lease in &answer.leases {
        let why = text::why(lease);
        let why = if why.is_empty() { why } else { format!(": {why}") };
        context.ui.out(&format!("{} {}{why}", lease.id, text::lease_state(lease)))?;
    }
    Ok(Exit::Ok)
}

/// Says that the work meets failures.
pub(crate) async fn report(context: &Context, args: ReportArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let reported = match args.unreached {
        true => client.report_unreached(&args.lease, &args.note).await,
        false => client.report(&args.lease, &args.note).await,
    };
    let lease = reported.map_err(|error| context.failure(error))?;
    if context.ui.json {
        context.ui.document(&lease.json())?;
    } else if text::ended(&lease) {
        let why = text::why(&lease);
        let why = if why.is_empty() { why } else { format!(": {why}") };
        context.ui.out(&format!("{} {}{why}", lease.id, text::lease_state(&lease)))?;
    } else if lease.doubt.is_none() && args.unreached {
        let (id, state) = (&lease.id, text::lease_state(&lease));
        let why = "the server logs in anew, and `wharfinger get` shows a doubt if it cannot";
        context.ui.out(&format!("{id} {state}: {} is in no doubt; {why}", lease.resource_id))?;
    } else if lease.doubt.is_none() {
        context.ui.out(&format!("{} {}: {} is in no doubt", lease.id, text::lease_state(&lease), lease.resource_id))?;
    } else {
        context.ui.out(&format!(
            "{} {}: {} is being checked",
            lease.id,
            text::lease_state(&lease),
            lease.resource_id
        ))?;
    }
    // For a holder's script this is the point: what it works on is lost.
    Ok(if text::ended(&lease) { exit_of_ended(&lease) } else { Exit::Ok })
}
