//! `why`: what happened to a lease or a resource, as one story.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::Json;
use super::read::{print_blockers, print_start};
use super::select::{Named, Placed, named, placed};
use super::{machines, text};
use crate::client::Client;
use crate::pb;
use clap::Args;
use std::time::Duration;

/// Arguments of `why`.
#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// Which: an id, or a machine as POOL/ITEM, or as ITEM where only one pool has it
    #[arg(value_name = "LEASE|RESOURCE|MACHINE", required_unless_present = "work", conflicts_with = "work")]
    id: Option<String>,
    /// List the attempts of this work in its stead, the first one first
    #[arg(long, value_name = "KEY")]
    work: Option<String>,
    /// Maximum number of entries, the newest ones
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
}

/// Tells it.
pub(crate) async fn why(context: &Context, args: WhyArgs) -> Result<Exit, Failure> {
    let Some(id) = args.id else { return attempts(context, &args.work.unwrap_or_default()).await };
    let client = context.connect().await?;
    let (lease_id, resource_id) = match (named(&id), placed(&id)) {
        (Ok(Named::Lease(id)), _) => (id, String::new()),
        (Ok(Named::Resource(id)), _) | (Err(_), Ok(Placed::Resource(id))) => (String::new(), id),
        (Err(_), Ok(Placed::Machine(name))) => match stands_for(context, &client, &name).await? {
            Some(id) => (String::new(), id),
            None => return Ok(Exit::Ok),
        },
        (Err(_), Err(why)) => return Err(Failure::new(Exit::BadData, why)),
    };
    let (waiting, resource) = (lease_id.clone(), resource_id.clone());
    let request = pb::TimelineRequest { lease_id, resource_id, limit: args.limit, ..pb::TimelineRequest::default() };
    let told = client.timeline(request).await.map_err(|error| context.failure(error))?;
    let ui = context.ui;
    if ui.json {
        ui.document(&told.json())?;
        return Ok(Exit::Ok);
    }
    let first = told.entries.first().and_then(|entry| entry.event.as_ref()).and_then(|event| event.at.as_ref());
    let mut table = ui.table(&["AFTER", "ROLE", "WHAT", "SUBJECT", "BY", "DETAIL"]);
    for entry in &told.entries {
        let event = entry.event.clone().unwrap_or_default();
        table.add_row(vec![
            after(entry.since_first.as_ref()),
            text::role(entry.role()).to_lowercase(),
            event.kind,
            event.subject,
            event.actor,
            text::one_line(&event.detail),
        ]);
    }
    if told.truncated {
        ui.warn(&format!("only the newest {} entries are told; raise --limit for more", told.entries.len()));
    }
    ui.out(&format!("from {}", text::clock(first)))?;
    ui.print(table, "nothing")?;
    if !waiting.is_empty() {
        waits(context, &client, &waiting).await?;
    }
    let link =
        context.link(&client, |page| if waiting.is_empty() { page.resource(&resource) } else { page.lease(&waiting) });
    if let Some(link) = link.await {
        ui.out(&format!("on the page: {link}"))?;
    }
    Ok(Exit::Ok)
}

/// Prints the orders of a machine, and returns the resource that stands for it. In JSON the machine is printed if none does.
async fn stands_for(context: &Context, client: &Client, name: &str) -> Result<Option<String>, Failure> {
    let pools = context.ask(client.admin().list_pools(pb::ListPoolsRequest::default())).await?.pools;
    let all: Vec<&pb::Item> = pools.iter().flat_map(|pool| &pool.items).collect();
    let machine = match machines::named(&all, name)[..] {
        [machine] => machine,
        [] => {
            let failure = Failure::new(Exit::BadData, format!("no pool has a machine {}", text::one_line(name)));
            return Err(failure.remedy("wharfinger pools --json lists the machines; the id of a lease starts with lse_, that of a resource with res_"));
        }
        [..] => {
            let failure = Failure::new(Exit::BadData, format!("several pools have a machine {}", text::one_line(name)));
            return Err(failure.remedy("write it as POOL/ITEM"));
        }
    };
    let resource = (!machine.resource_id.is_empty()).then(|| machine.resource_id.clone());
    match (&resource, context.ui.json) {
        (None, true) => context.ui.document(&machine.json())?,
        (Some(_), true) => {}
        (_, false) => context.ui.out(&machines::line(machine))?,
    }
    Ok(resource)
}

/// The leases of a work, with what became of each.
async fn attempts(context: &Context, work: &str) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    // All states: ended ones too, as long as they are kept.
    let works = vec![work.to_owned()];
    let mut request =
        pb::ListRequest { states: (1..=8).collect(), works, page_size: 1000, ..pb::ListRequest::default() };
    let mut leases: Vec<pb::Lease> = Vec::new();
    loop {
        let page = client.list(request.clone()).await.map_err(|error| context.failure(error))?;
        // A server of an earlier version does not know the filter.
        leases.extend(page.leases.into_iter().filter(|lease| lease.work == work));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let ui = context.ui;
    if ui.json {
        ui.document(&super::json::listed("leases", &leases, None))?;
        return Ok(Exit::Ok);
    }
    let mut table = ui.table(&["LEASE", "STATE", "ATTEMPT", "RESOURCE", "ASKED", "WHY"]);
    for lease in &leases {
        let attempt = match (lease.tags.get("attempt"), lease.tags.get("first_attempt")) {
            (Some(attempt), Some(first)) => format!("{attempt}, the first was {first}"),
            (_, _) => "-".into(),
        };
        table.add_row(vec![
            lease.id.clone(),
            text::lease_state(lease).into(),
            text::one_line(&attempt),
            if lease.resource_id.is_empty() { "-".into() } else { lease.resource_id.clone() },
            text::clock(lease.created_at.as_ref()),
            text::why(lease),
        ]);
    }
    ui.print(table, "no lease of this work is kept")?;
    Ok(Exit::Ok)
}

/// Why a lease waits, as `explain` says it; nothing of one that does not wait.
async fn waits(context: &Context, client: &Client, lease: &str) -> Result<(), Failure> {
    let said = client.explain(lease).await.map_err(|error| context.failure(error))?;
    if said.lease.as_ref().is_some_and(|lease| lease.state() == pb::LeaseState::Queued) {
        context.ui.out("")?;
        context.ui.out(&text::one_line(&said.summary))?;
        print_start(context, &said)?;
        print_blockers(context, &said.blockers)?;
    }
    Ok(())
}

/// `+12.345 s`, so wide that the points stand below each other for a day.
fn after(since: Option<&prost_types::Duration>) -> String {
    let since = since.and_then(|since| Duration::try_from(*since).ok()).unwrap_or_default();
    format!("{:>11} s", format!("+{}.{:03}", since.as_secs(), since.subsec_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_below_each_other() {
        let since = |seconds, nanos| after(Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(since(0, 0), "     +0.000 s");
        assert_eq!(since(86_399, 5_000_000), " +86399.005 s");
        assert_eq!(since(0, 0).len(), since(86_399, 0).len());
    }
}
