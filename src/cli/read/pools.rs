//! `pools`: each pool, its brakes, and its machines that are out.

use super::dash;
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::{json, machines, text};
use crate::pb;

/// Runs `pools`.
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

/// Prints the machines that are out, one a line, each with the operator who ordered it; and those that were lost again and again.
pub(super) fn machines_out<'p>(context: &Context, pools: impl Iterator<Item = &'p pb::Pool>) -> Result<(), Failure> {
    let out: Vec<&pb::Item> =
        pools.flat_map(|pool| &pool.items).filter(|machine| machines::is_conspicuous(machine)).collect();
    if !out.is_empty() {
        context.ui.out("")?;
    }
    for machine in out {
        context.ui.out(&machines::line(machine))?;
    }
    Ok(())
}

/// The trouble of a pool, for a cell. The brake comes first: while it is on, doubts and losses do not mean what they usually do.
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
    if !pool.enabled && !pool.disabled_reason.is_empty() {
        parts.push(text::one_line(&pool.disabled_reason));
    }
    if !pool.trouble.is_empty() {
        parts.push(text::one_line(&pool.trouble));
    }
    parts.join("; ")
}

/// Notes that are too long for a cell, one a line.
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
            // Each pool of hosts has the brake of all hosts.
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        if let Some(found) = &pool.losses {
            let made = pool.resources.iter().any(|one| one.state() == pb::ResourceState::Ready && one.count > 0);
            notes.push(("LOSSES", format!("pool {}: a host {}", pool.name, machines::losses(found, made))));
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
    fn a_brake_that_is_on_is_printed_twice_and_that_of_all_hosts_once() {
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
}
