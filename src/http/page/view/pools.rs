//! All pools, and one pool.

use super::act::title;
use super::now::why;
use super::{cell, fact, head, pairs};
use crate::auth::{Verb, Verbs};
use crate::http::page::part::{self, bar, clipped, others, resource_state, resource_word, time, to};
use crate::http::page::screen::{EventFilter, ResourceFilter, Screen};
use crate::http::page::verb::{Act, Target};
use crate::pb;
use maud::{Markup, html};
use pb::ResourceState as State;

/// Maximum number of machines of an inventory that are listed.
const ITEMS: usize = 200;

/// One pool with what is in it.
pub(crate) struct OnePool {
    pub(crate) pool: pb::Pool,
    /// Resources that need a look.
    pub(crate) trouble: Vec<pb::Resource>,
    /// The oldest requests that wait for it by name.
    pub(crate) waiting: Vec<pb::Lease>,
    pub(crate) events: Option<Vec<pb::Event>>,
    /// The verbs that the caller may use.
    pub(crate) actions: Markup,
    pub(crate) may: Verbs,
}

/// The screen of all pools.
pub(crate) fn pools(list: &[pb::Pool]) -> Markup {
    html! { h1 { "Pools" } (capacity(list)) }
}

fn count_of(pool: &pb::Pool, states: &[State]) -> i32 {
    pool.resources.iter().filter(|count| states.contains(&count.state())).map(|count| count.count).sum()
}

/// The slots of a pool as a bar.
fn slots(pool: &pb::Pool) -> Markup {
    let leased = (pool.leases - pool.slots_in_cleaning).max(0);
    bar(&[
        ("busy", "leased", leased),
        ("kept", "being cleaned", pool.slots_in_cleaning),
        ("good", "free", pool.free_slots),
    ])
}

/// The table of pools.
pub(super) fn capacity(list: &[pb::Pool]) -> Markup {
    const COLUMNS: [&str; 8] = ["Pool", "Slots", "Ready", "Being made", "In doubt", "Kept", "Waiting", "State"];
    html! {
        @if list.is_empty() { p.none { "There is no pool in your view." } }
        @else {
            table {
                caption.unseen { "Pools with their slots, resources and waiting requests" }
                (head(&COLUMNS))
                tbody {
                    @for pool in list {
                        tr {
                            (cell("Pool", &part::pool(&pool.name)))
                            (cell("Slots", &slots(pool)))
                            (cell("Ready", &html! { (count_of(pool, &[State::Ready])) " of " (pool.max) }))
                            (cell("Being made", &html! { (count_of(pool, &[State::Provisioning])) }))
                            (cell("In doubt", &html! { (count_of(pool, &[State::Suspect, State::Repairing])) }))
                            (cell("Kept", &html! { (count_of(pool, &[State::Quarantined, State::Draining, State::Orphaned])) }))
                            (cell("Waiting", &html! {
                                @if pool.waiting > 0 { (to(&Screen::queue(&pool.name), &pool.waiting.to_string())) } @else { "0" }
                            }))
                            (cell("State", &standing(pool)))
                        }
                    }
                }
            }
        }
    }
}

/// The reasons for which a pool does not serve; `open` if there are none.
fn standing(pool: &pb::Pool) -> Markup {
    html! {
        @if pool.brakes.iter().any(|brake| brake.held_since.is_some()) { span.state.bad { "▲ brake on" } " " }
        @if !pool.configured { "removed from the configuration, drains " }
        @else if !pool.enabled { "disabled " }
        @if pool.cordoned { "cordoned by " bdi { (clipped(&pool.cordoned_by)) } ": " (others(&pool.cordon_reason)) " " }
        @if pool.dry_run { "dry run " }
        @if pool.trouble.is_empty() { @if pool.configured && pool.enabled && !pool.cordoned { "open" } } @else { (others(&pool.trouble)) }
    }
}

/// The screen of one pool.
pub(crate) fn pool(shown: &OnePool) -> Markup {
    let pool = &shown.pool;
    let all = ResourceFilter { pool: pool.name.clone(), ..ResourceFilter::default() };
    html! {
        h1 { "Pool " bdi { (clipped(&pool.name)) } }
        p.lead { (standing(pool)) }
        (shown.actions)
        section aria-labelledby="capacity" {
            h2 #capacity { "Capacity" }
            p { (slots(pool)) }
            p {
                @for count in &pool.resources {
                    span.item { (resource_state(count.state())) " "
                        (to(&Screen::Resources(ResourceFilter { state: resource_word(count.state()).to_lowercase(), ..all.clone() }), &count.count.to_string())) }
                }
                (to(&Screen::Resources(all.clone()), "all resources"))
            }
            dl.facts {
                (fact("Adapter", &html! { (clipped(&pool.adapter)) }))
                (fact("On", &html! { @for name in &pool.on { (part::pool(name)) " " } @if pool.on.is_empty() { span.none { "–" } } }))
                (fact("Size", &html! { "at least " (pool.min_ready) " ready, at most " (pool.max) ", " (pool.slots) " slots each" }))
                (fact("Labels", &pairs(&pool.labels)))
                (fact("Waiting", &html! { (pool.waiting) }))
                @if let Some(counters) = &pool.counters {
                    (fact("Since the server leads", &html! {
                        (counters.doubts) " doubts, " (counters.cleared) " cleared, " (counters.repairs) " repairs, " (counters.lost) " lost, "
                        (counters.broken) " leases broken, " (counters.held) " held back"
                        @if pool.dry_run { ", would have ended " (counters.would_end) " and broken " (counters.would_break) }
                    }))
                }
            }
        }
        @if !pool.brakes.is_empty() {
            section aria-labelledby="brakes" {
                h2 #brakes { "Failure domains in trouble" }
                table {
                    caption.unseen { "Failure domains in trouble" }
                    (head(&["Domain", "In trouble", "Brake on since", "Why"]))
                    tbody {
                        @for brake in &pool.brakes {
                            tr {
                                (cell("Domain", &html! { @if brake.domain.is_empty() { "the whole pool" } @else { bdi { (clipped(&brake.domain)) } } }))
                                (cell("In trouble", &html! { (brake.troubled) " of " (brake.members) }))
                                (cell("Brake on since", &time(brake.held_since.as_ref())))
                                (cell("Why", &others(&brake.why)))
                            }
                        }
                    }
                }
            }
        }
        section aria-labelledby="trouble" {
            h2 #trouble { "Resources that need a look" }
            @if shown.trouble.is_empty() { p.none { "None." } }
            @else {
                table {
                    caption.unseen { "Resources that need a look" }
                    (head(&["Resource", "State", "Leases", "Why"]))
                    tbody {
                        @for one in &shown.trouble {
                            tr {
                                (cell("Resource", &part::machine(&one.item, &one.id)))
                                (cell("State", &resource_state(one.state())))
                                (cell("Leases", &html! { (one.lease_ids.len()) }))
                                (cell("Why", &why(one)))
                            }
                        }
                    }
                }
            }
        }
        @if !pool.items.is_empty() { (inventory(pool, shown.may)) }
        section aria-labelledby="waiting" {
            h2 #waiting { "Waiting, the oldest first" }
            (super::leases::table(&shown.waiting))
            p { (to(&Screen::queue(&pool.name), "the queue of this pool")) }
        }
        section aria-labelledby="events" {
            h2 #events { "Events" }
            @match &shown.events {
                None => p.none { "Your roles do not let you read the audit trail." },
                Some(events) => {
                    (super::events::table(events))
                    p { (to(&Screen::Events(EventFilter { pool: pool.name.clone(), ..EventFilter::default() }), "all events of this pool")) }
                },
            }
        }
    }
}

fn inventory(pool: &pb::Pool, may: Verbs) -> Markup {
    // Those that nothing stands for, or that a person has set apart, first.
    let mut items: Vec<&pb::Item> = pool.items.iter().collect();
    items.sort_by_key(|item| {
        let ordered = item.cordoned.is_some() || item.drained.is_some() || item.held.is_some();
        (item.enabled && !item.resource_id.is_empty() && !ordered, item.name.clone())
    });
    html! {
        section aria-labelledby="inventory" {
            h2 #inventory { "Inventory" }
            table {
                caption.unseen { "Machines of the inventory" }
                (head(&["Machine", "Resource", "Orders"]))
                tbody {
                    @for item in items.iter().take(ITEMS) {
                        tr {
                            (cell("Machine", &html! { bdi { (clipped(&item.name)) } @if !item.enabled { " (disabled)" } }))
                            (cell("Resource", &part::resource(&item.resource_id)))
                            (cell("Orders", &html! {
                                @for (word, order, verb) in [("cordoned", &item.cordoned, Verb::Uncordon), ("drained", &item.drained, Verb::Undrain), ("held", &item.held, Verb::Recover)] {
                                    @if let Some(order) = order {
                                        span.item { (word) " by " bdi { (clipped(&order.by)) } " at " (time(order.at.as_ref())) ": " (others(&order.reason))
                                            @if order.until.is_some() { ", until " (time(order.until.as_ref())) }
                                            @if may.has(verb) {
                                                @let act = Act { verb, target: Target::Machine(format!("{}/{}", pool.name, item.name)) };
                                                ", " a href=(act.url()) { (title(verb)) }
                                            } }
                                    }
                                }
                                @if let Some(note) = &item.note {
                                    span.item { "note of " bdi { (clipped(&note.by)) } " at " (time(note.at.as_ref())) ": " (others(&note.text)) }
                                }
                                @if item.resource_id.is_empty() && may.has(Verb::Note) {
                                    @let act = Act { verb: Verb::Note, target: Target::Machine(format!("{}/{}", pool.name, item.name)) };
                                    span.item { a href=(act.url()) { (title(Verb::Note)) } }
                                }
                            }))
                        }
                    }
                }
            }
            @if items.len() > ITEMS { p { (items.len() - ITEMS) " more machines are not listed: search for one in " (to(&Screen::Resources(ResourceFilter { pool: pool.name.clone(), ..ResourceFilter::default() }), "resources")) "." } }
        }
    }
}
