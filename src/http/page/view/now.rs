//! *Now*: whether all is well, and what needs a person: what is wrong, since when, who is hit, and the next step.

use super::pools::capacity;
use super::{cell, head};
use crate::http::page::part::{self, causes, clipped, counted, others, resource_state, time, to, visible};
use crate::http::page::screen::{LeaseFilter, ResourceFilter, Screen};
use crate::pb;
use crate::rpc::Standing;
use maud::{Markup, html};
use pb::ResourceState as State;

/// A lease on a resource in trouble.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hit {
    /// The resource in trouble.
    pub(crate) resource: String,
    pub(crate) lease: String,
    pub(crate) holder: String,
}

/// The contents of the screen. A part that the caller's roles do not let it read is `None`.
pub(crate) struct Now {
    pub(crate) standing: Standing,
    pub(crate) pools: Option<Vec<pb::Pool>>,
    /// Problems of the server's clock.
    pub(crate) warnings: Vec<String>,
    /// Resources that need a look, and whether there are more.
    pub(crate) trouble: Option<(Vec<pb::Resource>, bool)>,
    /// The leases on them, as far as they were looked up.
    pub(crate) hits: Vec<Hit>,
    /// Requests that the configuration can never meet.
    pub(crate) unmet: Vec<pb::ExplainResponse>,
    /// Leases that broke within the last hour, and their number.
    pub(crate) broken: Option<(Vec<pb::Lease>, usize)>,
}

/// One thing that needs a person.
struct Attention {
    id: String,
    sign: &'static str,
    what: Markup,
    since: Option<prost_types::Timestamp>,
    hit: Markup,
    step: Markup,
}

/// The screen.
pub(crate) fn now(shown: &Now) -> Markup {
    let rows = attention(shown);
    html! {
        h1 { "Now" }
        section.attention aria-labelledby="attention" {
            h2 #attention { "Attention" @if !rows.is_empty() { " (" (rows.len()) ")" } }
            @if rows.is_empty() {
                p.well { "Nothing needs you." }
            } @else {
                table {
                    caption.unseen { "What needs a person, the most urgent first" }
                    (head(&["What", "Since", "Who is hit", "Next step"]))
                    tbody {
                        @for row in &rows {
                            tr id=(row.id) {
                                (cell("What", &html! { @if !row.sign.is_empty() { span.sign aria-hidden="true" { (row.sign) } " " } (row.what) }))
                                (cell("Since", &time(row.since.as_ref())))
                                (cell("Who is hit", &row.hit))
                                (cell("Next step", &row.step))
                            }
                        }
                    }
                }
            }
        }
        @if let Some(pools) = &shown.pools { section aria-labelledby="capacity" { h2 #capacity { "Pools" } (capacity(pools)) } }
        @else { p.none { "Your roles do not let you read pools." } }
        section aria-labelledby="broken" {
            h2 #broken { "Broken in the last hour" }
            @match &shown.broken {
                None => p.none { "Your roles do not let you read the audit trail." },
                Some((leases, count)) => (broken(leases, *count)),
            }
        }
    }
}

fn broken(leases: &[pb::Lease], count: usize) -> Markup {
    // One line for each root cause.
    let mut roots: Vec<(&pb::Cause, Vec<&pb::Lease>)> = Vec::new();
    for lease in leases {
        let Some(root) = lease.causes.last() else { continue };
        match roots.iter_mut().find(|(known, _)| known.subject == root.subject && known.reason == root.reason) {
            Some((_, of)) => of.push(lease),
            None => roots.push((root, vec![lease])),
        }
    }
    html! {
        @if count == 0 { p.none { "No lease." } }
        @else {
            table {
                caption.unseen { "Leases that broke, by their root cause" }
                (head(&["Because", "When", "Leases"]))
                tbody {
                    @for (root, of) in &roots {
                        tr {
                            (cell("Because", &html! { b { (visible(&root.reason)) } " " (part::subject(&root.subject)) ": " (others(&root.detail)) }))
                            (cell("When", &time(root.at.as_ref())))
                            (cell("Leases", &html! {
                                @for lease in of {
                                    span.item {
                                        (part::lease(&lease.id)) " of " bdi { (clipped(&lease.holder)) }
                                        @if !lease.replacement_id.is_empty() { ", in its stead " (part::lease(&lease.replacement_id)) }
                                    }
                                }
                            }))
                        }
                    }
                }
            }
            @if count > leases.len() { p { (count) " leases broke; the latest " (leases.len()) " are shown. "
                (to(&Screen::Leases(LeaseFilter { state: "broken".into(), ..LeaseFilter::default() }), "All of them")) } }
        }
    }
}

/// The rows of *Attention*, the most urgent first.
fn attention(shown: &Now) -> Vec<Attention> {
    let none = || html! { span.none { "–" } };
    let mut rows = Vec::new();
    if !shown.standing.leads && shown.standing.leader.is_none() {
        rows.push(Attention {
            id: "no-leader".into(),
            sign: "▲",
            what: html! { b { "No server leads" } " that this one knows: nothing is decided" },
            since: None,
            hit: html! { "everyone who asks" },
            step: to(&Screen::Servers, "see the servers"),
        });
    }
    for (n, warning) in shown.warnings.iter().enumerate() {
        rows.push(Attention {
            id: format!("clock-{n}"),
            sign: "▲",
            what: html! { b { "Clock" } ": " (others(warning)) },
            since: None,
            hit: none(),
            step: html! { "set the clock of the server's machine" },
        });
    }
    let pools = shown.pools.as_deref().unwrap_or_default();
    for pool in pools {
        for brake in pool.brakes.iter().filter(|brake| brake.held_since.is_some()) {
            let domain = match &*brake.domain {
                "" => "the whole pool".to_owned(),
                "*" => "all hosts".to_owned(),
                name => clipped(name),
            };
            rows.push(Attention {
                id: format!("brake-{}-{n}", id_of(&pool.name), n = rows.len()),
                sign: "▲",
                what: html! {
                    b { "BRAKE ON" } " in pool " (part::pool(&pool.name)) ", " (domain) ": " (brake.troubled) " of " (brake.members)
                    " in trouble. " (others(&brake.why))
                },
                since: brake.held_since,
                hit: html! { (pool.leases) " leases in the pool" },
                step: to(&trouble_in(&pool.name), "what they share"),
            });
        }
    }
    for said in &shown.unmet {
        let Some(lease) = &said.lease else { continue };
        rows.push(Attention {
            id: format!("unmet-{}", lease.id),
            sign: "✕",
            what: html! { (part::lease(&lease.id)) " " (others(&said.summary)) },
            since: lease.created_at,
            hit: html! { bdi { (clipped(&lease.holder)) } },
            step: to(&Screen::Lease(lease.id.clone()), "why"),
        });
    }
    for pool in pools.iter().filter(|pool| pool.waiting > 0) {
        let stopped = if !pool.enabled {
            Some("is disabled in the configuration".to_owned())
        } else if pool.cordoned {
            Some(format!("is cordoned by {}: {}", clipped(&pool.cordoned_by), clipped(&pool.cordon_reason)))
        } else if !pool.trouble.is_empty() {
            Some(format!("cannot grow: {}", clipped(&pool.trouble)))
        } else {
            None
        };
        if let Some(why) = stopped {
            rows.push(Attention {
                id: format!("pool-{}", id_of(&pool.name)),
                sign: "✕",
                what: html! { "pool " (part::pool(&pool.name)) " " (why) },
                since: None,
                hit: html! { (pool.waiting) " requests wait" },
                step: to(&Screen::Queue { pool: pool.name.clone() }, "who waits"),
            });
        }
    }
    for wanted in [State::Suspect, State::Orphaned, State::Quarantined, State::Repairing, State::Draining] {
        for resource in shown.trouble.iter().flat_map(|(list, _)| list).filter(|one| one.state() == wanted) {
            rows.push(in_trouble(resource, &shown.hits));
        }
    }
    if shown.trouble.as_ref().is_some_and(|(_, more)| *more) {
        rows.push(Attention {
            id: "more-trouble".into(),
            sign: "…",
            what: html! { "more resources need a look" },
            since: None,
            hit: none(),
            step: to(&trouble_in(""), "all of them"),
        });
    }
    rows
}

fn trouble_in(pool: &str) -> Screen {
    Screen::Resources(ResourceFilter { pool: pool.into(), state: "trouble".into(), ..ResourceFilter::default() })
}

fn in_trouble(resource: &pb::Resource, hits: &[Hit]) -> Attention {
    let hit: Vec<&Hit> = hits.iter().filter(|hit| hit.resource == resource.id).collect();
    let unknown = resource.lease_ids.len().saturating_sub(hit.len());
    let next = match resource.state() {
        State::Suspect => "checks are under way: look",
        State::Quarantined => "recover it",
        State::Orphaned => "see why",
        _ => "look",
    };
    Attention {
        id: format!("trouble-{}", resource.id),
        // The state has a sign of its own.
        sign: "",
        what: html! {
            (resource_state(resource.state())) " " (part::machine(&resource.item, &resource.id)) " in pool " (part::pool(&resource.pool))
            @if resource.misses > 0 { ", no answer to " (counted(usize::try_from(resource.misses).unwrap_or(0), "check", "checks")) }
            ". " (why(resource))
        },
        since: resource.causes.first().and_then(|cause| cause.at),
        hit: html! {
            @for one in &hit { span.item { (part::lease(&one.lease)) " of " bdi { (clipped(&one.holder)) } } }
            @if unknown > 0 { span.item { (unknown) @if hit.is_empty() { " leases" } @else { " more" } } }
            @if hit.is_empty() && unknown == 0 { "no one" }
        },
        step: to(&Screen::resource(&resource.id), next),
    }
}

/// Why a resource is where it is, a person's word first.
pub(super) fn why(resource: &pb::Resource) -> Markup {
    html! {
        @if !resource.kept_by.is_empty() {
            "kept by " bdi { (clipped(&resource.kept_by)) } ": " (others(&resource.kept_reason)) " "
        }
        @if resource.cordoned { "cordoned by " bdi { (clipped(&resource.cordoned_by)) } ": " (others(&resource.cordon_reason)) " " }
        @if !resource.held.is_empty() { "held: " (others(&resource.held)) " " }
        @if let Some(cause) = resource.causes.first() { b { (visible(&cause.reason)) } " " (others(&cause.detail)) }
        @else if !resource.trouble.is_empty() { (others(&resource.trouble)) }
        @if resource.causes.len() > 1 { details { summary { "the whole chain" } (causes(&resource.causes)) } }
    }
}

/// A name as a part of an id of an element.
fn id_of(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
