//! Machines in words: what operators ordered for each, how often it was lost, and what stands for it.

use super::text;
use crate::pb;

/// The name of a machine: `linux/builder-3`.
fn name(machine: &pb::Item) -> String {
    format!("{}/{}", machine.pool, machine.name)
}

/// The machines of this name: `POOL/ITEM`, or `ITEM` alone.
pub(crate) fn named<'a>(all: &[&'a pb::Item], wanted: &str) -> Vec<&'a pb::Item> {
    all.iter().copied().filter(|machine| machine.name == wanted || name(machine) == wanted).collect()
}

/// Whether there is something to say of it: it is out, it was lost again and again, or it has a note.
pub(crate) fn is_conspicuous(machine: &pb::Item) -> bool {
    is_out(machine) || machine.losses.is_some() || machine.note.is_some()
}

/// Whether an order or the configuration keeps leases away from it.
fn is_out(machine: &pb::Item) -> bool {
    !machine.enabled || [&machine.cordoned, &machine.drained, &machine.held].iter().any(|order| order.is_some())
}

/// Why leases are kept away from it: `drained by ann since 12:00:01: disk`; empty if they are not.
fn why(machine: &pb::Item) -> String {
    let orders = [("cordoned", &machine.cordoned), ("drained", &machine.drained), ("held", &machine.held)];
    let mut parts: Vec<String> = Vec::new();
    for (what, order) in orders {
        let Some(order) = order else { continue };
        let since = text::clock(order.at.as_ref());
        let until = match &order.until {
            Some(at) => format!(" until {}", text::clock(Some(at))),
            None => String::new(),
        };
        let reason = text::one_line(&order.reason);
        let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
        parts.push(format!("{what} by {} since {since}{until}{reason}", text::one_line(&order.by)));
    }
    if !machine.enabled {
        let reason = text::one_line(&machine.disabled_reason);
        let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
        parts.push(format!("disabled in the configuration{reason}"));
    }
    parts.join("; ")
}

/// Losses in words: `was lost 4 times since 12:00:01, the last time at 12:00:31 by RESOURCE_GONE: …; comes back at 12:00:35`.
/// `stands`: a resource was made since.
pub(crate) fn losses(losses: &pb::Losses, stands: bool) -> String {
    let [since, last, again] = [&losses.since, &losses.last_at, &losses.again_at].map(|at| text::clock(at.as_ref()));
    let why = text::one_line(&losses.why);
    let told = format!("was lost {} times since {since}, the last time at {last} by {why}", losses.count);
    if stands { told } else { format!("{told}; comes back at {again}") }
}

/// A note in words: `note of ann at 12:00:01: the fan is loud`.
pub(crate) fn note(note: &pb::Note) -> String {
    let (by, at) = (text::one_line(&note.by), text::clock(note.at.as_ref()));
    format!("note of {by} at {at}: {}", text::one_line(&note.text))
}

/// A machine on one line: `machine linux/builder-3: drained by ann since 12:00:01: disk; no resource stands for it`.
pub(crate) fn line(machine: &pb::Item) -> String {
    let stands = !machine.resource_id.is_empty();
    let noted = machine.note.as_ref().map(note);
    let lost = machine.losses.as_ref().map(|found| losses(found, stands));
    let parts: Vec<String> = [why(machine), lost.unwrap_or_default(), noted.unwrap_or_default()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let why = if parts.is_empty() { "no order keeps leases away from it".into() } else { parts.join("; ") };
    let now = if machine.resource_id.is_empty() { "; no resource stands for it" } else { "" };
    format!("machine {}: {why}{now}", name(machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_short_and_a_whole_name() {
        let machine = |pool: &str, name: &str| pb::Item { pool: pool.into(), name: name.into(), ..pb::Item::default() };
        let (one, two, other) = (machine("linux", "b1"), machine("mac", "b1"), machine("mac", "b2"));
        let all = [&one, &two, &other];
        assert_eq!(named(&all, "b1"), [&one, &two]);
        assert_eq!((named(&all, "mac/b1"), named(&all, "b2")), (vec![&two], vec![&other]));
        assert!(named(&all, "linux/b2").is_empty());
    }

    #[test]
    fn a_machine_says_who_keeps_leases_away_and_why() {
        let order = pb::Order { by: "ann".into(), reason: "disk".into(), ..pb::Order::default() };
        let free = pb::Item { pool: "linux".into(), name: "b1".into(), enabled: true, ..pb::Item::default() };
        assert!(!is_out(&free));
        assert_eq!(line(&free), "machine linux/b1: no order keeps leases away from it; no resource stands for it");
        let out = pb::Item { drained: Some(order), resource_id: "res_1".into(), ..free.clone() };
        assert!(is_out(&out));
        assert_eq!(line(&out), "machine linux/b1: drained by ann since -: disk");
        assert_eq!(why(&pb::Item { enabled: false, ..free.clone() }), "disabled in the configuration");
        let reason = "new disk\non Monday".into();
        let disabled = pb::Item { enabled: false, disabled_reason: reason, ..free };
        assert_eq!(why(&disabled), "disabled in the configuration: new disk on Monday");
    }

    #[test]
    fn a_machine_that_was_lost_again_and_again_says_when_it_comes_back() {
        let losses = pb::Losses { count: 4, why: "RESOURCE_GONE: REBOOTED".into(), ..pb::Losses::default() };
        let gone = pb::Item {
            pool: "linux".into(),
            name: "b1".into(),
            enabled: true,
            losses: Some(losses),
            ..pb::Item::default()
        };
        assert!(is_conspicuous(&gone) && !is_out(&gone));
        let told = "machine linux/b1: was lost 4 times since -, the last time at - by RESOURCE_GONE: REBOOTED";
        assert_eq!(line(&gone), format!("{told}; comes back at -; no resource stands for it"));
        assert_eq!(line(&pb::Item { resource_id: "res_1".into(), ..gone }), told);
    }

    #[test]
    fn a_note_is_one_line_behind_the_orders() {
        let note = pb::Note { by: "ann".into(), text: "the fan\nis loud\u{202e}".into(), at: None };
        let free = pb::Item {
            pool: "linux".into(),
            name: "b1".into(),
            enabled: true,
            note: Some(note),
            resource_id: "res_1".into(),
            ..pb::Item::default()
        };
        assert!(is_conspicuous(&free) && !is_out(&free));
        let told = line(&free);
        assert!(told.starts_with("machine linux/b1: note of ann at -: the fan is loud"), "{told}");
        assert!(!told.contains(crate::hidden::is_hidden), "{told}");
        let order = pb::Order { by: "bob".into(), ..pb::Order::default() };
        let told = line(&pb::Item { cordoned: Some(order), ..free });
        assert!(told.starts_with("machine linux/b1: cordoned by bob since -; note of ann"), "{told}");
    }
}
