//! Machines in words: what operators ordered for each, and what stands for it.

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

/// Whether an order or the configuration keeps leases away from it.
pub(crate) fn is_out(machine: &pb::Item) -> bool {
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
        parts.push("disabled in the configuration".into());
    }
    parts.join("; ")
}

/// A machine on one line: `machine linux/builder-3: drained by ann since 12:00:01: disk; no resource stands for it`.
pub(crate) fn line(machine: &pb::Item) -> String {
    let why = why(machine);
    let why = if why.is_empty() { "no order keeps leases away from it".into() } else { why };
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
        assert_eq!(why(&pb::Item { enabled: false, ..free }), "disabled in the configuration");
    }
}
