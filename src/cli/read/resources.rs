//! `resources`, `resource`.

use super::pools::machines_out;
use super::watch_resources::watch;
use super::{dash, print_facts};
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::json::{self, Json};
use crate::cli::machines;
use crate::cli::paging::{page_size, warn_of_more};
use crate::cli::select::{Placed, placed};
use crate::cli::text;
use crate::pb;
use clap::{Args, ValueEnum};

/// Arguments of `resources`.
#[derive(Args, Debug)]
pub(crate) struct ResourcesArgs {
    /// Filter by pool; may be repeated
    #[arg(long, short, value_name = "POOL")]
    pool: Vec<String>,
    /// Filter by state; may be repeated
    #[arg(long, value_enum, value_name = "STATE", conflicts_with = "all")]
    state: Vec<State>,
    /// Include resources that are gone, until they are purged
    #[arg(long, short)]
    all: bool,
    /// Maximum number of rows
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Print a line for each resource, and then for each change
    #[arg(long, short, conflicts_with = "limit")]
    watch: bool,
    /// Go on after this revision; without it, begin with the current state
    #[arg(long, value_name = "REVISION", requires = "watch", default_value_t = 0)]
    from: u64,
    /// Print a line for each change of a pool, too
    #[arg(long, requires = "watch")]
    pools: bool,
}

/// States of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Being made.
    Provisioning,
    /// Fit for leases.
    Ready,
    /// In doubt: a check is under way.
    Suspect,
    /// Being mended.
    Repairing,
    /// Kept as it is for an operator.
    Quarantined,
    /// No new leases; destroyed after the last one.
    Draining,
    /// Being removed.
    Destroying,
    /// Could not be removed.
    Orphaned,
    /// It exists no more.
    Gone,
}

impl State {
    fn number(self) -> i32 {
        let state = match self {
            State::Provisioning => pb::ResourceState::Provisioning,
            State::Ready => pb::ResourceState::Ready,
            State::Suspect => pb::ResourceState::Suspect,
            State::Repairing => pb::ResourceState::Repairing,
            State::Quarantined => pb::ResourceState::Quarantined,
            State::Draining => pb::ResourceState::Draining,
            State::Destroying => pb::ResourceState::Destroying,
            State::Orphaned => pb::ResourceState::Orphaned,
            State::Gone => pb::ResourceState::Gone,
        };
        state.into()
    }
}

impl ResourcesArgs {
    /// The states that are wanted. None: all but those that are gone.
    fn states(&self) -> Vec<i32> {
        if self.all { (1..=9).collect() } else { self.state.iter().map(|state| state.number()).collect() }
    }
}

/// Arguments of `resource`.
#[derive(Args, Debug)]
pub(crate) struct OneResource {
    /// Id of a resource, or a machine as POOL/ITEM, or as ITEM where only one pool has it
    #[arg(value_name = "RESOURCE|MACHINE", value_parser = placed)]
    place: Placed,
}

/// Runs `resources`.
pub(crate) async fn resources(context: &Context, args: ResourcesArgs) -> Result<Exit, Failure> {
    let states = args.states();
    if args.watch {
        let request = pb::WatchResourcesRequest {
            pools: args.pool,
            states,
            from_revision: args.from,
            include_pools: args.pools,
            ..pb::WatchResourcesRequest::default()
        };
        return watch(context, request).await;
    }
    let mut admin = context.connect().await?.admin();
    let mut request = pb::ListResourcesRequest { pools: args.pool, states, ..pb::ListResourcesRequest::default() };
    let mut resources = Vec::new();
    let (revision, more) = loop {
        request.page_size = page_size(args.limit, resources.len());
        let page = context.ask(admin.list_resources(request.clone())).await?;
        resources.extend(page.resources);
        if page.next_page_token.is_empty() || resources.len() >= args.limit {
            break (page.revision, !page.next_page_token.is_empty());
        }
        request.page_token = page.next_page_token;
    };
    let ui = context.ui;
    if ui.json {
        ui.document(&json::listed("resources", &resources, Some(revision)))?;
        return Ok(Exit::Ok);
    }
    let mut table = ui.table(&["RESOURCE", "STATE", "POOL", "MACHINE", "SLOTS", "USES", "AGE", "ON", "WHY"]);
    for resource in &resources {
        table.add_row(vec![
            resource.id.as_str().into(),
            ui.state(text::resource_state(resource)),
            resource.pool.as_str().into(),
            // The pool stands beside it. A working copy has the machine of its host.
            match resource.item.is_empty() {
                true => text::machine(resource.access.as_ref()),
                false => text::one_line(&resource.item),
            }
            .into(),
            format!("{}/{}", resource.slots_in_use, resource.slots).into(),
            resource.uses.into(),
            text::ago(resource.created_at.as_ref()).into(),
            dash(&resource.parent_id).into(),
            comfy_table::Cell::from(why_and_note(resource)),
        ]);
    }
    ui.print(table, "no resources; they are made when someone waits, or when a pool has min_ready")?;
    warn_of_more(context, more, args.limit);
    let all = context.ask(admin.list_pools(pb::ListPoolsRequest::default())).await?.pools;
    let shown = |pool: &&pb::Pool| request.pools.is_empty() || request.pools.contains(&pool.name);
    machines_out(context, all.iter().filter(shown))?;
    Ok(Exit::Ok)
}

/// Why a resource is as it is, and the note on it.
pub(super) fn why_and_note(resource: &pb::Resource) -> String {
    let note = resource.note.as_ref().map(machines::note);
    let parts = [Some(resource_why(resource)), note].into_iter().flatten();
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Why a resource is as it is, in a few words.
pub(crate) fn resource_why(resource: &pb::Resource) -> String {
    if !resource.kept_by.is_empty() {
        return kept(resource);
    }
    if resource.cordoned {
        return cordoned(resource);
    }
    if !resource.held.is_empty() {
        return format!("held: {}", text::one_line(&resource.held));
    }
    match resource.causes.first() {
        Some(cause) => text::cause_short(cause),
        None if resource.slots_in_cleaning > 0 && resource.trouble.is_empty() => {
            format!("{} being cleaned", resource.slots_in_cleaning)
        }
        None if !resource.at_risk.is_empty() => format!("at risk: {}", text::one_line(&resource.at_risk)),
        None => text::one_line(&resource.trouble),
    }
}

/// `kept by ann until 17:04:00: the build of 17 fails here`.
fn kept(resource: &pb::Resource) -> String {
    let until = match &resource.kept_until {
        Some(at) => format!(" until {}", text::clock(Some(at))),
        None => String::new(),
    };
    let by = format!("kept by {}{until}", text::one_line(&resource.kept_by));
    if resource.kept_reason.is_empty() { by } else { format!("{by}: {}", text::one_line(&resource.kept_reason)) }
}

fn cordoned(resource: &pb::Resource) -> String {
    let by = format!("cordoned by {}", resource.cordoned_by);
    if resource.cordon_reason.is_empty() { by } else { format!("{by}: {}", text::one_line(&resource.cordon_reason)) }
}

/// Runs `resource`.
pub(crate) async fn resource(context: &Context, args: OneResource) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let (resource_id, machine) = args.place.parts();
    let request = pb::GetResourceRequest { resource_id, machine, ..pb::GetResourceRequest::default() };
    let resource = context.ask(admin.get_resource(request)).await?.resource.unwrap_or_default();
    if context.ui.json {
        context.ui.document(&resource.json())?;
    } else {
        print_resource(context, &resource)?;
    }
    Ok(Exit::Ok)
}

fn print_resource(context: &Context, resource: &pb::Resource) -> Result<(), Failure> {
    let mut rows: Vec<(&str, String)> =
        vec![("resource", resource.id.clone()), ("state", text::resource_state(resource).into())];
    let mut add = |name, value: String| {
        if !value.is_empty() && value != "-" {
            rows.push((name, value));
        }
    };
    add("pool", resource.pool.clone());
    add("item", resource.item.clone());
    add("labels", text::pairs(&resource.labels));
    add("slots", format!("{} of {} in use", resource.slots_in_use, resource.slots));
    add("uses", resource.uses.to_string());
    add("on", resource.parent_id.clone());
    if resource.cordoned {
        add("cordoned", cordoned(resource));
    }
    if !resource.kept_by.is_empty() {
        add("kept", kept(resource));
    }
    if let Some(note) = &resource.note {
        let (by, at) = (text::one_line(&note.by), text::clock(note.at.as_ref()));
        add("note", format!("{} ({by}, {at})", text::one_line(&note.text)));
    }
    add("held", text::one_line(&resource.held));
    add("at risk", text::one_line(&resource.at_risk));
    add("made at", text::clock(resource.created_at.as_ref()));
    add("ready at", text::clock(resource.ready_at.as_ref()));
    add("ends at", text::clock(resource.ends_at.as_ref()));
    add("again at", text::clock(resource.retry_at.as_ref()));
    add("drained by", text::clock(resource.deadline.as_ref()));
    if resource.misses > 0 {
        add("misses", resource.misses.to_string());
    }
    add("trouble", text::one_line(&resource.trouble));
    for cause in text::causes(&resource.causes) {
        add("cause", cause);
    }
    for failure in &resource.failures {
        let checked = if failure.cleared { "; a check since found nothing" } else { "" };
        let at = text::clock(failure.at.as_ref());
        add("failed", format!("{} ({}, {at}{checked})", text::one_line(&failure.work), failure.lease_id));
    }
    for (key, value) in resource.access_pairs() {
        add("access", format!("{key}={}", text::one_line(&value)));
    }
    for lease in &resource.lease_ids {
        add("lease", lease.clone());
    }
    print_facts(context, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_resource_is_as_it_is_begins_with_what_a_person_wanted() {
        let cause = pb::Cause { reason: "PROBE_MISSED".into(), ..pb::Cause::default() };
        let mut resource = pb::Resource { causes: vec![cause], at_risk: "rebalance".into(), ..pb::Resource::default() };
        assert_eq!(resource_why(&resource), "PROBE_MISSED");
        resource.held = "the brake is on".into();
        assert_eq!(resource_why(&resource), "held: the brake is on");
        (resource.cordoned, resource.cordoned_by) = (true, "ann".into());
        assert_eq!(resource_why(&resource), "cordoned by ann");
        (resource.kept_by, resource.kept_reason) = ("bob".into(), "evidence".into());
        assert_eq!(resource_why(&resource), "kept by bob: evidence");
        let at_risk = pb::Resource { at_risk: "rebalance".into(), ..pb::Resource::default() };
        assert_eq!(resource_why(&at_risk), "at risk: rebalance");
    }
}
