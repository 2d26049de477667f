//! `explain`: why a lease waits, or its causes.

use super::get::OneLease;
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::json::Json;
use crate::cli::text;
use crate::cli::trail::print_events;
use crate::likely;
use crate::pb;

/// Code of a blocker: the brake of the pool is on.
const BRAKED: &str = "BRAKED";

/// Runs `explain`.
pub(crate) async fn explain(context: &Context, args: OneLease) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let said = client.explain(&args.lease).await.map_err(|error| context.failure(error))?;
    let ui = context.ui;
    if ui.json {
        ui.document(&said.json())?;
        return Ok(Exit::Ok);
    }
    let lease = said.lease.clone().unwrap_or_default();
    ui.out(&format!(
        "{} {}: {}",
        lease.id,
        ui.state_text(text::lease_state(&lease)).trim_end(),
        text::one_line(&said.summary)
    ))?;
    if said.position > 0 {
        ui.out(&format!("  place in line: {}", said.position))?;
    }
    print_start(context, &said)?;
    if !said.satisfiable && !text::ended(&lease) {
        ui.out("  cannot be met with the present configuration")?;
    }
    if lease.doubt.is_some() {
        let request =
            pb::GetResourceRequest { resource_id: lease.resource_id.clone(), ..pb::GetResourceRequest::default() };
        let resource = context.ask(client.admin().get_resource(request)).await?.resource.unwrap_or_default();
        if !resource.held.is_empty() {
            ui.out(&format!("  nothing follows from the evidence: {}", text::one_line(&resource.held)))?;
        }
    }
    print_blockers(context, &said.blockers)?;
    for cause in text::causes(&lease.causes) {
        ui.out(&format!("  {cause}"))?;
    }
    if !said.history.is_empty() {
        ui.out("")?;
        print_events(context, &said.history)?;
    }
    Ok(Exit::Ok)
}

/// Prints when a lease that waits is likely to start, or why that is not known.
pub(crate) fn print_start(context: &Context, said: &pb::ExplainResponse) -> Result<(), Failure> {
    let start = likely::said(said.likely_start.as_ref(), &said.no_likely_start);
    if start.is_empty() { Ok(()) } else { context.ui.out(&format!("  likely start: {}", text::one_line(&start))) }
}

/// Prints the blockers of a lease, one pool a line, each with its remedy.
pub(crate) fn print_blockers(context: &Context, blockers: &[pb::Blocker]) -> Result<(), Failure> {
    let ui = context.ui;
    for blocker in blockers {
        // While the brake is on, the other blockers do not mean what they usually do.
        let mark =
            if blocker.code == BRAKED { format!("{} ", ui.state_text("BRAKE ON").trim_end()) } else { String::new() };
        let detail = text::one_line(&blocker.detail);
        ui.out(&format!("  {mark}pool {}: {detail} ({})", blocker.pool, blocker.code))?;
        if !blocker.remedy.is_empty() {
            ui.out(&format!("    try: {}", text::one_line(&blocker.remedy)))?;
        }
    }
    Ok(())
}
