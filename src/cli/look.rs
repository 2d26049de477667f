//! `get`, `ls`, `explain`, `pools`, `resources`, `resource`: looking, and changing nothing.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::{self, Json};
use super::select::{Placed, placed};
use super::trail::print_events;
use super::{machines, text};
use crate::pb;
use clap::{Args, ValueEnum};

/// Code of a blocker: the brake of the pool is on.
const BRAKED: &str = "BRAKED";

/// `get`, `explain`.
#[derive(Args, Debug)]
pub(crate) struct OneLease {
    /// Which
    #[arg(value_name = "LEASE")]
    lease: String,
}

/// `ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Only of this pool; may be repeated
    #[arg(long, short, value_name = "POOL")]
    pool: Vec<String>,
    /// Only of this holder; may be repeated
    #[arg(long, value_name = "TEXT")]
    holder: Vec<String>,
    /// Only in this state; may be repeated
    #[arg(long, value_enum, value_name = "STATE", conflicts_with = "all")]
    state: Vec<State>,
    /// Only on this resource
    #[arg(long, value_name = "RESOURCE", default_value = "")]
    resource: String,
    /// Those that have ended too, as long as they are kept
    #[arg(long, short)]
    all: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// States of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// In line.
    Queued,
    /// Being made ready.
    Preparing,
    /// Held.
    Active,
    /// Ended by its holder.
    Released,
    /// Its holder vanished.
    Expired,
    /// Ended against its holder's will.
    Broken,
    /// Left the line.
    Cancelled,
    /// Never came about.
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

/// `resources`.
#[derive(Args, Debug)]
pub(crate) struct ResourcesArgs {
    /// Only of this pool; may be repeated
    #[arg(long, short, value_name = "POOL")]
    pool: Vec<String>,
    /// Those that are gone too, as long as they are kept
    #[arg(long, short)]
    all: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// `resource`.
#[derive(Args, Debug)]
pub(crate) struct OneResource {
    /// Which: an id, or a machine as POOL/ITEM, or as ITEM where only one pool has it
    #[arg(value_name = "RESOURCE|MACHINE", value_parser = placed)]
    place: Placed,
}

const PAGE: i32 = 500;

pub(super) fn page_size(limit: usize, have: usize) -> i32 {
    i32::try_from(limit.saturating_sub(have)).unwrap_or(PAGE).clamp(1, PAGE)
}

/// One lease.
pub(crate) async fn get(context: &Context, args: OneLease) -> Result<Exit, Failure> {
    let lease = context.connect().await?.get(&args.lease).await.map_err(|error| context.failure(error))?;
    if context.ui.json {
        context.ui.document(&lease.json())?
    } else {
        print_lease(context, &lease)?
    }
    Ok(Exit::Ok)
}

/// Leases.
pub(crate) async fn ls(context: &Context, args: LsArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let states: &[State] = if args.all { State::ALL } else { &args.state };
    let mut request = pb::ListRequest {
        pools: args.pool,
        holders: args.holder,
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
    more_is_there(context, more, args.limit);
    Ok(Exit::Ok)
}

fn more_is_there(context: &Context, more: bool, limit: usize) {
    if more {
        context.ui.warn(&format!("there are more than {limit}; raise --limit to see them"));
    }
}

/// Why a lease waits, or what became of it.
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
    if !said.satisfiable && !text::ended(&lease) {
        ui.out("  can not be met with the present configuration")?;
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

/// What keeps a lease waiting, a pool each, with the remedy.
pub(crate) fn print_blockers(context: &Context, blockers: &[pb::Blocker]) -> Result<(), Failure> {
    let ui = context.ui;
    for blocker in blockers {
        // While it is on, nothing else that is said here means what it usually does.
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

/// Pools.
pub(crate) async fn pools(context: &Context) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let answer = context.ask(admin.list_pools(pb::ListPoolsRequest::default())).await?;
    let ui = context.ui;
    if ui.json {
        let mut document = json::listed("pools", &answer.pools, Some(answer.revision));
        document["warnings"] = answer.warnings.into();
        ui.document(&document)?;
        return Ok(Exit::Ok);
    }
    let mut table =
        ui.table(&["POOL", "ADAPTER", "ON", "LEASABLE", "MADE/MAX", "FREE", "LEASES", "WAITING", "LABELS", "TROUBLE"]);
    for pool in &answer.pools {
        let there = pool.resources.iter().filter(|one| one.state() != pb::ResourceState::Gone);
        let made: i32 = there.map(|one| one.count).sum();
        let leasable = match (pool.configured, pool.enabled, pool.cordoned) {
            (false, _, _) => "removed",
            (true, false, _) => "disabled",
            (true, true, true) => "cordoned",
            (true, true, false) => "yes",
        };
        table.add_row(vec![
            pool.name.as_str().into(),
            pool.adapter.as_str().into(),
            dash(&pool.on.join(",")).into(),
            ui.state(leasable),
            format!("{made}/{}", pool.max).into(),
            pool.free_slots.into(),
            pool.leases.into(),
            pool.waiting.into(),
            text::pairs(&pool.labels).into(),
            comfy_table::Cell::from(pool_trouble(pool)),
        ]);
    }
    ui.print(table, "no pools; add them to the server's configuration and send it SIGHUP")?;
    let notes = pool_notes(&answer.pools);
    if !notes.is_empty() {
        ui.out("")?;
    }
    for (what, text) in notes {
        ui.out(&format!("{} {text}", ui.state_text(what)))?;
    }
    machines_out(context, answer.pools.iter())?;
    for warning in &answer.warnings {
        ui.warn(warning);
    }
    Ok(Exit::Ok)
}

/// The machines that are out, a line each, by whose order.
fn machines_out<'p>(context: &Context, pools: impl Iterator<Item = &'p pb::Pool>) -> Result<(), Failure> {
    let out: Vec<&pb::Item> = pools.flat_map(|pool| &pool.items).filter(|machine| machines::is_out(machine)).collect();
    if !out.is_empty() {
        context.ui.out("")?;
    }
    for machine in out {
        context.ui.out(&machines::line(machine))?;
    }
    Ok(())
}

/// What is bought, and how it went.
pub(crate) async fn weather(context: &Context) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let answer = context.ask(admin.weather(pb::WeatherRequest {})).await?;
    let ui = context.ui;
    if ui.json {
        ui.document(&json::listed("lines", &answer.lines, None))?;
        return Ok(Exit::Ok);
    }
    let header = ["ZONE", "TYPE", "MARKET", "LAUNCHED", "INTERRUPTED", "NO CAPACITY", "MEAN LIFE", "RESTS FOR"];
    let mut table = ui.table(&header);
    for line in &answer.lines {
        table.add_row(vec![
            comfy_table::Cell::from(line.zone.as_str()),
            line.instance_type.as_str().into(),
            text::market(line.market()).into(),
            line.launches.into(),
            line.interruptions.into(),
            line.capacity_errors.into(),
            text::span(line.mean_life.as_ref()).into(),
            text::span(line.resting.as_ref()).into(),
        ]);
    }
    ui.print(table, "nothing was bought since the broker's start")?;
    Ok(Exit::Ok)
}

/// The brake comes first: while it is on, nothing that is told of doubts and losses means what it usually does.
fn pool_trouble(pool: &pb::Pool) -> String {
    let on = pool.brakes.iter().filter(|brake| brake.held_since.is_some());
    let mut parts: Vec<String> =
        on.map(|brake| format!("BRAKE ON ({} of {} in trouble)", brake.troubled, brake.members)).collect();
    if pool.dry_run {
        parts.push("DRY RUN".into());
    }
    if pool.slots_in_cleaning > 0 {
        parts.push(format!("{} being cleaned", pool.slots_in_cleaning));
    }
    if !pool.trouble.is_empty() {
        parts.push(text::one_line(&pool.trouble));
    }
    parts.join("; ")
}

/// What is too much for a cell, a line each.
fn pool_notes(pools: &[pb::Pool]) -> Vec<(&'static str, String)> {
    let mut notes: Vec<(&'static str, String)> = Vec::new();
    for pool in pools {
        for brake in pool.brakes.iter().filter(|brake| brake.held_since.is_some()) {
            let whose = match (brake.domain.as_str(), pool.domain.as_str()) {
                ("*", _) => "all hosts".to_string(),
                ("", _) => format!("pool {}", pool.name),
                (domain, label) => format!("pool {} ({label}={domain})", pool.name),
            };
            let since = text::clock(brake.held_since.as_ref());
            let note = ("BRAKE ON", format!("{whose} since {since}: {}", text::one_line(&brake.why)));
            // That of all hosts is told with each pool of hosts.
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        if pool.dry_run {
            let mut text = format!("pool {}: silence and bad checks end nothing", pool.name);
            // Only the server that leads counts.
            if let Some(counted) = pool.counters {
                text.push_str(&format!(
                    "; so far they would have ended {} resources and broken {} leases",
                    counted.would_end, counted.would_break
                ));
            }
            notes.push(("DRY RUN", text));
        }
    }
    notes
}

/// Resources.
pub(crate) async fn resources(context: &Context, args: ResourcesArgs) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let mut request = pb::ListResourcesRequest { pools: args.pool, ..pb::ListResourcesRequest::default() };
    if args.all {
        request.states = (1..=9).collect();
    }
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
            comfy_table::Cell::from(resource_why(resource)),
        ]);
    }
    ui.print(table, "no resources; they are made when someone waits, or when a pool has min_ready")?;
    more_is_there(context, more, args.limit);
    let all = context.ask(admin.list_pools(pb::ListPoolsRequest::default())).await?.pools;
    let shown = |pool: &&pb::Pool| request.pools.is_empty() || request.pools.contains(&pool.name);
    machines_out(context, all.iter().filter(shown))?;
    Ok(Exit::Ok)
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

/// One resource.
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

/// A lease, a line a fact.
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

fn print_facts(context: &Context, rows: &[(&str, String)]) -> Result<(), Failure> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        if *name == "state" {
            context.ui.out(&format!("{name:width$}  {}", context.ui.state_text(value).trim_end()))?;
        } else {
            context.ui.out(&format!("{name:width$}  {value}"))?;
        }
    }
    Ok(())
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn braked(name: &str, domain: &str) -> pb::Pool {
        let brake = pb::Brake {
            domain: domain.into(),
            members: 8,
            troubled: 5,
            held_since: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            why: "5 of 8 are in trouble at once".into(),
        };
        pb::Pool { name: name.into(), domain: "zone".into(), brakes: vec![brake], ..pb::Pool::default() }
    }

    #[test]
    fn a_brake_that_is_on_is_told_twice_and_that_of_all_hosts_once() {
        let (mut one, two) = (braked("one", "*"), braked("two", "*"));
        one.brakes.extend(braked("one", "a").brakes);
        // In trouble, and not held.
        one.brakes.push(pb::Brake { troubled: 1, members: 9, ..pb::Brake::default() });
        one.trouble = "no key".into();
        assert_eq!(pool_trouble(&one), "BRAKE ON (5 of 8 in trouble); BRAKE ON (5 of 8 in trouble); no key");
        let notes: Vec<String> =
            pool_notes(&[one, two]).into_iter().map(|(what, text)| format!("{what} {text}")).collect();
        let [all, zone] = &notes[..] else { panic!("{notes:?}") };
        assert!(
            all.starts_with("BRAKE ON all hosts since ") && all.ends_with(": 5 of 8 are in trouble at once"),
            "{all}"
        );
        assert!(zone.starts_with("BRAKE ON pool one (zone=a) since "), "{zone}");
        assert!(pool_notes(&[pb::Pool::default()]).is_empty());
    }

    #[test]
    fn a_dry_run_says_what_it_spared() {
        let counters = pb::PoolCounters { would_end: 3, would_break: 7, ..pb::PoolCounters::default() };
        let pool = pb::Pool { name: "p".into(), dry_run: true, counters: Some(counters), ..pb::Pool::default() };
        assert_eq!(pool_trouble(&pool), "DRY RUN");
        let [(what, text)] = &pool_notes(&[pool])[..] else { panic!() };
        assert_eq!(*what, "DRY RUN");
        assert!(text.contains("ended 3 resources and broken 7 leases"), "{text}");
    }

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
