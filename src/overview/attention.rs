//! Matters that need a person, the most urgent first.

use super::foreign::clipped;
use super::gather::{Hit, LOOK, Now};
use crate::pb;
use pb::ResourceState as State;

/// How urgent a concern is, as a sign beside its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// All else is doubtful.
    Alarm,
    /// Requests wait in vain.
    Blocked,
    /// There are more of its kind.
    More,
    /// The state of the resource has a sign of its own.
    None,
}

impl Sign {
    /// The character; empty for none.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Sign::Alarm => "▲",
            Sign::Blocked => "✕",
            Sign::More => "…",
            Sign::None => "",
        }
    }
}

/// A part of a sentence.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Words of this program.
    Text(String),
    /// The same, the most important ones.
    Strong(String),
    /// A text of others.
    Others(String),
    Pool(String),
    Lease(String),
    State(State),
    /// A machine, or a resource that stands for none.
    Machine {
        item: String,
        id: String,
    },
    /// Why a resource is where it is.
    Why(Box<pb::Resource>),
}

/// Where the next step is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the machine of the server.
    Outside,
    Servers,
    /// The resources in trouble of this pool; of all pools with an empty name.
    Trouble(String),
    Lease(String),
    Queue(String),
    Resource(String),
}

/// The leases and requests that are hit.
#[derive(Clone, Debug)]
pub(crate) enum Struck {
    Unsaid,
    Everyone,
    /// Number of leases of the pool.
    LeasesOfPool(i32),
    /// Number of requests that wait.
    Requests(i32),
    Holder(String),
    /// The holders of leases on a resource, and the number of those that were not looked up.
    Leases {
        known: Vec<Hit>,
        more: usize,
    },
}

/// One thing that needs a person.
#[derive(Clone, Debug)]
pub(crate) struct Concern {
    /// Unique among the concerns of one answer.
    pub(crate) id: String,
    pub(crate) sign: Sign,
    pub(crate) what: Vec<Piece>,
    pub(crate) since: Option<prost_types::Timestamp>,
    pub(crate) hit: Struck,
    pub(crate) place: Place,
    /// The next step, in a few words.
    pub(crate) step: &'static str,
}

fn text(text: impl Into<String>) -> Piece {
    Piece::Text(text.into())
}

/// Matters that need a person, the most urgent first.
pub(crate) fn attention(now: &Now) -> Vec<Concern> {
    let mut rows = Vec::new();
    if now.server.as_ref().is_some_and(|server| !server.leads && server.leader.is_empty()) {
        rows.push(Concern {
            id: "no-leader".into(),
            sign: Sign::Alarm,
            what: vec![Piece::Strong("No server leads".into()), text(" that this one knows: nothing is decided")],
            since: None,
            hit: Struck::Everyone,
            place: Place::Servers,
            step: "see the servers",
        });
    }
    rows.extend(now.server.as_deref().and_then(refused));
    for (n, warning) in now.warnings.iter().enumerate() {
        rows.push(Concern {
            id: format!("clock-{n}"),
            sign: Sign::Alarm,
            what: vec![Piece::Strong("Clock".into()), text(": "), Piece::Others(warning.clone())],
            since: None,
            hit: Struck::Unsaid,
            place: Place::Outside,
            step: "set the clock of the server's machine",
        });
    }
    let pools = now.pools.as_deref().unwrap_or_default();
    for pool in pools {
        for brake in pool.brakes.iter().filter(|brake| brake.held_since.is_some()) {
            let id = format!("brake-{}-{n}", id_of(&pool.name), n = rows.len());
            rows.push(braked(id, pool, brake));
        }
    }
    rows.extend(now.unmet.iter().filter_map(unmet));
    rows.extend(pools.iter().filter(|pool| pool.waiting > 0).filter_map(stopped));
    for wanted in LOOK_FIRST {
        for resource in now.trouble.iter().flat_map(|(list, _)| list).filter(|one| one.state() == wanted) {
            rows.push(in_trouble(resource, &now.hits));
        }
    }
    if now.trouble.as_ref().is_some_and(|(_, more)| *more) {
        rows.push(Concern {
            id: "more-trouble".into(),
            sign: Sign::More,
            what: vec![text("more resources need a look")],
            since: None,
            hit: Struck::Unsaid,
            place: Place::Trouble(String::new()),
            step: "all of them",
        });
    }
    rows
}

/// The states that need a look, the most urgent first.
const LOOK_FIRST: [State; LOOK.len()] =
    [State::Suspect, State::Orphaned, State::Quarantined, State::Repairing, State::Draining];

fn braked(id: String, pool: &pb::Pool, brake: &pb::Brake) -> Concern {
    let domain = match &*brake.domain {
        "" => "the whole pool".to_owned(),
        "*" => "all hosts".to_owned(),
        name => clipped(name),
    };
    Concern {
        id,
        sign: Sign::Alarm,
        what: vec![
            Piece::Strong("BRAKE ON".into()),
            text(" in pool "),
            Piece::Pool(pool.name.clone()),
            text(format!(", {domain}: {} of {} in trouble. ", brake.troubled, brake.members)),
            Piece::Others(brake.why.clone()),
        ],
        since: brake.held_since,
        hit: Struck::LeasesOfPool(pool.leases),
        place: Place::Trouble(pool.name.clone()),
        step: "what they share",
    }
}

/// A text of the configuration file that the server refused.
fn refused(server: &pb::GetServerResponse) -> Option<Concern> {
    let since = server.configuration_refused_since?;
    Some(Concern {
        id: "configuration".into(),
        sign: Sign::Alarm,
        what: vec![
            Piece::Strong("Configuration refused".into()),
            text("; the one before stays: "),
            Piece::Others(server.configuration_problem.clone()),
        ],
        since: Some(since),
        hit: Struck::Unsaid,
        place: Place::Servers,
        step: "mend the file, and reload",
    })
}

/// A request that the configuration can never meet.
fn unmet(said: &pb::ExplainResponse) -> Option<Concern> {
    let lease = said.lease.as_ref()?;
    Some(Concern {
        id: format!("unmet-{}", lease.id),
        sign: Sign::Blocked,
        what: vec![Piece::Lease(lease.id.clone()), text(" "), Piece::Others(said.summary.clone())],
        since: lease.created_at,
        hit: Struck::Holder(lease.holder.clone()),
        place: Place::Lease(lease.id.clone()),
        step: "why",
    })
}

/// A pool that serves no one, though requests wait for it.
fn stopped(pool: &pb::Pool) -> Option<Concern> {
    let why = if !pool.enabled {
        match clipped(&pool.disabled_reason) {
            reason if reason.is_empty() => "is disabled in the configuration".to_owned(),
            reason => format!("is disabled in the configuration: {reason}"),
        }
    } else if pool.cordoned {
        format!("is cordoned by {}: {}", clipped(&pool.cordoned_by), clipped(&pool.cordon_reason))
    } else if !pool.trouble.is_empty() {
        format!("cannot grow: {}", clipped(&pool.trouble))
    } else {
        return None;
    };
    Some(Concern {
        id: format!("pool-{}", id_of(&pool.name)),
        sign: Sign::Blocked,
        what: vec![text("pool "), Piece::Pool(pool.name.clone()), text(format!(" {why}"))],
        since: None,
        hit: Struck::Requests(pool.waiting),
        place: Place::Queue(pool.name.clone()),
        step: "who waits",
    })
}

fn in_trouble(resource: &pb::Resource, hits: &[Hit]) -> Concern {
    let known: Vec<Hit> = hits.iter().filter(|hit| hit.resource == resource.id).cloned().collect();
    let more = resource.lease_ids.len().saturating_sub(known.len());
    let step = match resource.state() {
        State::Suspect => "checks are under way: look",
        State::Quarantined => "recover it",
        State::Orphaned => "see why",
        _ => "look",
    };
    let mut what = vec![
        Piece::State(resource.state()),
        text(" "),
        Piece::Machine { item: resource.item.clone(), id: resource.id.clone() },
        text(" in pool "),
        Piece::Pool(resource.pool.clone()),
    ];
    match resource.misses {
        ..=0 => {}
        1 => what.push(text(", no answer to 1 check")),
        misses => what.push(text(format!(", no answer to {misses} checks"))),
    }
    what.push(text(". "));
    what.push(Piece::Why(Box::new(resource.clone())));
    Concern {
        id: format!("trouble-{}", resource.id),
        sign: Sign::None,
        what,
        since: resource.causes.first().and_then(|cause| cause.at),
        hit: Struck::Leases { known, more },
        place: Place::Resource(resource.id.clone()),
        step,
    }
}

/// Leases that broke, by their root cause.
pub(crate) fn roots(leases: &[pb::Lease]) -> Vec<(&pb::Cause, Vec<&pb::Lease>)> {
    let mut roots: Vec<(&pb::Cause, Vec<&pb::Lease>)> = Vec::new();
    for lease in leases {
        let Some(root) = lease.causes.last() else { continue };
        match roots.iter_mut().find(|(known, _)| known.subject == root.subject && known.reason == root.reason) {
            Some((_, of)) => of.push(lease),
            None => roots.push((root, vec![lease])),
        }
    }
    roots
}

/// A name as a part of an id.
fn id_of(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
