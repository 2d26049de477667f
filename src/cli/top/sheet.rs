//! A view as lines and rows of text. Texts of others are in it with every character visible, so that none drives the terminal.

use super::app::View;
use super::ask::{Answer, Facts};
use super::lanes;
use crate::cli::servers::{COLUMNS as SERVER_COLUMNS, cells as server_cells, role};
use crate::cli::text::{ago, clock, lease_state, selector, why as lease_why};
use crate::likely;
use crate::overview::{
    Concern, Now, Piece, Place, Queue, Struck, Tone, attention, clipped, lanes_of, roots, seconds, visible,
};
use crate::pb;
use pb::ResourceState as State;

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) text: String,
    pub(super) tone: Option<Tone>,
    pub(super) strong: bool,
}

impl Part {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: None, strong: false }
    }

    fn strong(text: impl Into<String>) -> Self {
        Self { strong: true, ..Self::plain(text) }
    }

    fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { tone: Some(tone), ..Self::plain(text) }
    }
}

/// A row, and where `Enter` leads.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) cells: Vec<Vec<Part>>,
    pub(super) link: Option<View>,
    /// The command that goes on from here.
    pub(super) command: Option<String>,
}

/// A view as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Sheet {
    pub(super) title: String,
    /// Lines above the rows.
    pub(super) above: Vec<Vec<Part>>,
    pub(super) head: Vec<&'static str>,
    /// The widths of the columns, in parts of the whole.
    pub(super) widths: Vec<u16>,
    pub(super) rows: Vec<Row>,
    /// The sentence in place of no rows.
    pub(super) empty: &'static str,
}

fn cell(text: impl Into<String>) -> Vec<Part> {
    vec![Part::plain(text)]
}

fn others(text: &str) -> Vec<Part> {
    cell(clipped(text))
}

/// The view of an answer for a terminal of this width.
pub(super) fn sheet(answer: &Answer, width: u16) -> Sheet {
    match &answer.facts {
        Facts::Now(now) => of_now(now),
        Facts::Pools(pools) => of_pools(pools),
        Facts::Resources(list, more) => of_resources(list, *more),
        Facts::Resource(resource, story) => of_resource(resource, story.as_ref(), width),
        Facts::Queue(queue) => of_queue(queue),
        Facts::Leases(list, more) => of_leases(list, *more),
        Facts::Lease(said, story) => of_lease(said, story.as_ref()),
        Facts::Events(events) => of_events(events),
        Facts::Servers(said) => Sheet {
            title: "Servers".into(),
            head: SERVER_COLUMNS.to_vec(),
            widths: vec![4, 4, 2, 1, 2, 1, 2, 3],
            rows: said
                .iter()
                .map(|one| Row { cells: server_cells(one).into_iter().map(cell).collect(), ..Row::default() })
                .collect(),
            empty: "No server is named.",
            ..Sheet::default()
        },
    }
}

/// The place of a server, in words.
pub(super) fn standing(server: &pb::GetServerResponse) -> String {
    format!("{} · revision {}", role(server), server.revision)
}

fn of_now(now: &Now) -> Sheet {
    let concerns = attention(now);
    let mut above = Vec::new();
    if let Some(pools) = &now.pools {
        for pool in pools {
            above.push(pool_line(pool));
        }
    }
    match &now.broken {
        None => {}
        Some((_, 0)) => above.push(cell("Broken in the last hour: no lease.")),
        Some((leases, count)) => {
            above.push(vec![Part::strong(format!("Broken in the last hour: {count}"))]);
            for (root, of) in roots(leases).iter().take(5) {
                let holders: Vec<String> = of.iter().take(3).map(|lease| clipped(&lease.holder)).collect();
                above.push(vec![
                    Part::toned("✕ ", Tone::Bad),
                    Part::strong(visible(&root.reason)),
                    Part::plain(format!(
                        " {} {}: {} ({} of {})",
                        clock(root.at.as_ref()),
                        clipped(&root.subject),
                        clipped(&root.detail),
                        of.len(),
                        holders.join(", ")
                    )),
                ]);
            }
        }
    }
    Sheet {
        title: if concerns.is_empty() { "Now".into() } else { format!("Now: {} need you", concerns.len()) },
        above,
        head: vec!["WHAT", "SINCE", "WHO IS HIT", "NEXT STEP"],
        widths: vec![8, 1, 4, 3],
        rows: concerns.iter().map(concern).collect(),
        empty: "Nothing needs you.",
    }
}

fn concern(concern: &Concern) -> Row {
    let mut what = Vec::new();
    if !concern.sign.text().is_empty() {
        what.push(Part::toned(format!("{} ", concern.sign.text()), Tone::Bad));
    }
    what.extend(concern.what.iter().flat_map(said));
    let hit = match &concern.hit {
        Struck::Unsaid => "-".to_owned(),
        Struck::Everyone => "everyone who asks".to_owned(),
        Struck::LeasesOfPool(count) => format!("{count} leases in the pool"),
        Struck::Requests(count) => format!("{count} requests wait"),
        Struck::Holder(holder) => clipped(holder),
        Struck::Leases { known, more } if known.is_empty() && *more == 0 => "no one".to_owned(),
        Struck::Leases { known, more } => {
            let mut list: Vec<String> = known.iter().map(|hit| clipped(&hit.holder)).collect();
            if *more > 0 {
                list.push(format!("{more} more leases"));
            }
            list.join(", ")
        }
    };
    let (link, command) = match &concern.place {
        Place::Outside => (None, None),
        Place::Servers => (Some(View::Servers), None),
        Place::Trouble(pool) => (Some(View::Resources { pool: pool.clone(), trouble: true }), None),
        Place::Lease(id) => (Some(View::Lease(id.clone())), Some(format!("wharfinger explain {}", visible(id)))),
        Place::Queue(pool) => (Some(View::Queue(pool.clone())), None),
        Place::Resource(id) => (Some(View::Resource(id.clone())), Some(format!("wharfinger why {}", visible(id)))),
    };
    Row { cells: vec![what, cell(ago(concern.since.as_ref())), cell(hit), cell(concern.step)], link, command }
}

/// A part of a sentence.
fn said(piece: &Piece) -> Vec<Part> {
    match piece {
        Piece::Text(text) => cell(text.clone()),
        Piece::Strong(text) => vec![Part::strong(text.clone())],
        Piece::Others(text) | Piece::Pool(text) | Piece::Lease(text) => others(text),
        Piece::State(state) => vec![state_part(*state)],
        Piece::Machine { item, id } => others(if item.is_empty() { id } else { item }),
        Piece::Why(resource) => cell(why(resource)),
    }
}

/// Why a resource is where it is, a person's word first.
fn why(one: &pb::Resource) -> String {
    let mut parts = Vec::new();
    if !one.kept_by.is_empty() {
        parts.push(format!("kept by {}: {}", clipped(&one.kept_by), clipped(&one.kept_reason)));
    }
    if one.cordoned {
        parts.push(format!("cordoned by {}: {}", clipped(&one.cordoned_by), clipped(&one.cordon_reason)));
    }
    if let Some(note) = &one.note {
        parts.push(format!("note of {}: {}", clipped(&note.by), clipped(&note.text)));
    }
    if !one.held.is_empty() {
        parts.push(format!("held: {}", clipped(&one.held)));
    }
    match one.causes.first() {
        Some(cause) => parts.push(format!("{} {}", visible(&cause.reason), clipped(&cause.detail))),
        None if !one.trouble.is_empty() => parts.push(clipped(&one.trouble)),
        None => {}
    }
    parts.join("; ")
}

/// A state with its sign, as the page has it.
fn state_part(state: State) -> Part {
    let (sign, tone) = match state {
        State::Ready => ("●", Tone::Good),
        State::Provisioning => ("◐", Tone::Busy),
        State::Suspect => ("▲", Tone::Bad),
        State::Repairing => ("✚", Tone::Busy),
        State::Quarantined => ("⏸", Tone::Kept),
        State::Draining => ("↘", Tone::Kept),
        State::Destroying => ("✕", Tone::Busy),
        State::Orphaned => ("⚑", Tone::Bad),
        State::Gone | State::Unspecified => ("○", Tone::None),
    };
    Part::toned(format!("{sign} {}", crate::cli::text::state_name(state)), tone)
}

fn lease_part(lease: &pb::Lease) -> Part {
    use pb::LeaseState as Of;
    let tone = match lease.state() {
        Of::Active => Tone::Good,
        Of::Preparing => Tone::Busy,
        Of::Queued => Tone::Kept,
        Of::Broken | Of::Failed | Of::Expired => Tone::Bad,
        Of::Released | Of::Cancelled | Of::Unspecified => Tone::None,
    };
    Part::toned(lease_state(lease), tone)
}

/// The slots of a pool as a bar of 20 characters, and the same in words.
fn pool_line(pool: &pb::Pool) -> Vec<Part> {
    const BAR: i32 = 20;
    let leased = (pool.leases - pool.slots_in_cleaning).max(0);
    let all = (leased + pool.slots_in_cleaning + pool.free_slots).max(1);
    let share = |count: i32| usize::try_from(count.saturating_mul(BAR) / all).unwrap_or(0);
    let (busy, cleaning) = (share(leased), share(pool.slots_in_cleaning));
    let free = share(pool.free_slots);
    let mut line = vec![
        Part::strong(format!("{:<16} ", clipped(&pool.name))),
        Part::toned("▓".repeat(busy), Tone::Busy),
        Part::toned("▒".repeat(cleaning), Tone::Kept),
        Part::toned("█".repeat(free), Tone::Good),
        Part::plain(format!(
            "{} {leased} leased, {} in cleaning, {} free, {} waiting",
            " ".repeat(20_usize.saturating_sub(busy + cleaning + free)),
            pool.slots_in_cleaning,
            pool.free_slots,
            pool.waiting
        )),
    ];
    if let Some(state) = stands(pool) {
        line.push(Part::toned(format!(" {state}"), Tone::Bad));
    }
    line
}

/// Why a pool does not serve. `None`: it serves.
fn stands(pool: &pb::Pool) -> Option<String> {
    let mut parts = Vec::new();
    if pool.brakes.iter().any(|brake| brake.held_since.is_some()) {
        parts.push("▲ brake on".to_owned());
    }
    if !pool.configured {
        parts.push("removed from the configuration, drains".to_owned());
    } else if !pool.enabled {
        parts.push("disabled".to_owned());
    }
    if pool.cordoned {
        parts.push(format!("cordoned by {}: {}", clipped(&pool.cordoned_by), clipped(&pool.cordon_reason)));
    }
    if !pool.trouble.is_empty() {
        parts.push(clipped(&pool.trouble));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn count_of(pool: &pb::Pool, states: &[State]) -> i32 {
    pool.resources.iter().filter(|count| states.contains(&count.state())).map(|count| count.count).sum()
}

fn of_pools(pools: &[pb::Pool]) -> Sheet {
    let row = |pool: &pb::Pool| Row {
        cells: vec![
            others(&pool.name),
            cell(format!("{}/{}", pool.free_slots, pool.free_slots + pool.leases)),
            cell(format!("{} of {}", count_of(pool, &[State::Ready]), pool.max)),
            cell(count_of(pool, &[State::Provisioning]).to_string()),
            cell(count_of(pool, &[State::Suspect, State::Repairing]).to_string()),
            cell(count_of(pool, &[State::Quarantined, State::Draining, State::Orphaned]).to_string()),
            cell(pool.waiting.to_string()),
            cell(stands(pool).unwrap_or_else(|| "open".into())),
        ],
        link: Some(View::Resources { pool: pool.name.clone(), trouble: false }),
        command: Some(format!("wharfinger events --pool {}", visible(&pool.name))),
    };
    Sheet {
        title: "Pools".into(),
        head: vec!["POOL", "FREE/SLOTS", "READY", "BEING MADE", "IN DOUBT", "KEPT", "WAITING", "STATE"],
        widths: vec![4, 3, 3, 3, 2, 2, 2, 8],
        rows: pools.iter().map(row).collect(),
        empty: "There is no pool in your view.",
        ..Sheet::default()
    }
}

fn of_resources(list: &[pb::Resource], more: bool) -> Sheet {
    let row = |one: &pb::Resource| Row {
        cells: vec![
            vec![state_part(one.state())],
            others(if one.item.is_empty() { &one.id } else { &one.item }),
            others(&one.pool),
            cell(format!("{}/{}", one.slots_in_use, one.slots)),
            cell(one.uses.to_string()),
            cell(ago(one.ready_at.as_ref())),
            cell(why(one)),
        ],
        link: Some(View::Resource(one.id.clone())),
        command: Some(format!("wharfinger why {}", visible(&one.id))),
    };
    Sheet {
        title: if more { format!("Resources: the first {}", list.len()) } else { format!("Resources: {}", list.len()) },
        head: vec!["STATE", "RESOURCE", "POOL", "SLOTS", "USES", "READY FOR", "WHY"],
        widths: vec![3, 6, 3, 1, 1, 2, 8],
        rows: list.iter().map(row).collect(),
        empty: "No resource.",
        ..Sheet::default()
    }
}

fn of_resource(one: &pb::Resource, story: Option<&pb::TimelineResponse>, width: u16) -> Sheet {
    let mut above = vec![vec![
        state_part(one.state()),
        Part::plain(format!(
            " in pool {} · {} · {} of {} slots · {} uses",
            clipped(&one.pool),
            visible(&one.id),
            one.slots_in_use,
            one.slots,
            one.uses
        )),
    ]];
    let why = why(one);
    if !why.is_empty() {
        above.push(cell(why));
    }
    let mut rows = Vec::new();
    match story {
        None => above.push(cell("Your roles do not let you read the story of a resource.")),
        Some(story) => {
            let now = seconds() * 1_000;
            let (lanes, first) = lanes_of(&one.id, story, now);
            above.push(cell(""));
            above.extend(lanes::lines(&lanes, first, now, width.saturating_sub(2)));
            above.push(cell(format!(
                "{:<9}since {}; █ ready ▓ busy ▲ in doubt, broken ▒ kept ◆ said",
                "",
                clock(story.entries.first().and_then(|entry| entry.event.as_ref()?.at).as_ref())
            )));
            above.push(cell(""));
            rows = entries(story);
        }
    }
    Sheet {
        title: format!("Resource {}", clipped(if one.item.is_empty() { &one.id } else { &one.item })),
        above,
        head: STORY_HEAD.to_vec(),
        widths: STORY_WIDTHS.to_vec(),
        rows,
        empty: "No entry.",
    }
}

const STORY_HEAD: [&str; 4] = ["WHEN", "WHAT", "SUBJECT", "DETAIL"];
const STORY_WIDTHS: [u16; 4] = [2, 4, 5, 9];

fn event_row(event: &pb::Event) -> Row {
    let link = if event.lease_id.is_empty() {
        Some(&event.resource_id).filter(|id| !id.is_empty()).map(|id| View::Resource(id.clone()))
    } else {
        Some(View::Lease(event.lease_id.clone()))
    };
    Row {
        cells: vec![
            cell(clock(event.at.as_ref())),
            vec![Part::strong(visible(&event.kind))],
            others(&event.subject),
            others(&event.detail),
        ],
        link,
        command: None,
    }
}

/// The entries of a story, the newest first.
fn entries(story: &pb::TimelineResponse) -> Vec<Row> {
    story.entries.iter().rev().filter_map(|entry| entry.event.as_ref()).map(event_row).collect()
}

fn of_queue(queue: &Queue) -> Sheet {
    let mut rows = Vec::new();
    for class in queue.classes() {
        for (n, request) in class.requests.iter().enumerate() {
            let lease = request.lease.clone().unwrap_or_default();
            let why = match class.said.filter(|_| n == 0) {
                Some(said) if !said.satisfiable => format!("never: {}", clipped(&said.summary)),
                Some(said) => said.blockers.first().map_or_else(
                    || "nothing blocks it".to_owned(),
                    |first| format!("{} {}", visible(&first.code), clipped(&first.detail)),
                ),
                None => clipped(&lease.trouble),
            };
            let start = match &request.likely_start {
                Some(start) => likely::range(start),
                None => clipped(&likely::unknown(&request.no_likely_start)),
            };
            rows.push(Row {
                cells: vec![
                    cell(request.position.to_string()),
                    cell(ago(lease.created_at.as_ref())),
                    others(&lease.holder),
                    others(&class.class.wants),
                    cell(lease.priority.to_string()),
                    cell(start),
                    cell(why),
                ],
                link: Some(View::Lease(lease.id.clone())),
                command: Some(format!("wharfinger explain {}", visible(&lease.id))),
            });
        }
    }
    let more = queue.page.as_ref().is_some_and(|page| !page.next_page_token.is_empty());
    Sheet {
        title: match (&*queue.pool, more) {
            ("", false) => format!("Queue: {} wait", rows.len()),
            ("", true) => format!("Queue: the first {} requests", rows.len()),
            (pool, _) => format!("Queue of pool {}: {} wait", clipped(pool), rows.len()),
        },
        head: vec!["PLACE", "FOR", "HOLDER", "WANTS", "PRIORITY", "LIKELY START", "WHY IT WAITS"],
        widths: vec![1, 1, 5, 4, 2, 3, 7],
        rows,
        empty: "No request waits.",
        ..Sheet::default()
    }
}

fn of_leases(list: &[pb::Lease], more: bool) -> Sheet {
    let row = |lease: &pb::Lease| Row {
        cells: vec![
            vec![lease_part(lease)],
            others(&lease.holder),
            others(&selector(lease.selector.as_ref())),
            cell(ago(lease.active_at.as_ref().or(lease.created_at.as_ref()))),
            cell(visible(&lease.id)),
            others(&lease_why(lease)),
        ],
        link: Some(View::Lease(lease.id.clone())),
        command: Some(format!("wharfinger why {}", visible(&lease.id))),
    };
    Sheet {
        title: if more { format!("Leases: the first {}", list.len()) } else { format!("Leases: {}", list.len()) },
        head: vec!["STATE", "HOLDER", "WANTED", "FOR", "LEASE", "WHY"],
        widths: vec![2, 5, 4, 1, 5, 6],
        rows: list.iter().map(row).collect(),
        empty: "No lease that has not ended.",
        ..Sheet::default()
    }
}

fn of_lease(said: &pb::ExplainResponse, story: Option<&pb::TimelineResponse>) -> Sheet {
    let lease = said.lease.clone().unwrap_or_default();
    let mut above = vec![vec![
        lease_part(&lease),
        Part::plain(format!(
            " · {} · {} · of {}",
            visible(&lease.id),
            selector(lease.selector.as_ref()),
            clipped(&lease.holder)
        )),
    ]];
    above.push(others(&said.summary));
    let start = likely::said(said.likely_start.as_ref(), &said.no_likely_start);
    if !start.is_empty() {
        above.push(cell(format!("likely start: {}", clipped(&start))));
    }
    for cause in &lease.causes {
        above.push(vec![
            Part::toned("✕ ", Tone::Bad),
            Part::strong(visible(&cause.reason)),
            Part::plain(format!(
                " {}: {} ({})",
                clipped(&cause.subject),
                clipped(&cause.detail),
                clipped(&cause.source)
            )),
        ]);
    }
    for blocker in &said.blockers {
        above.push(vec![Part::strong(visible(&blocker.code)), Part::plain(format!(" {}", clipped(&blocker.detail)))]);
    }
    for (word, id) in [("in its stead", &lease.replacement_id), ("it replaces", &lease.replaces_id)] {
        if !id.is_empty() {
            above.push(cell(format!("{word}: {}", visible(id))));
        }
    }
    above.push(cell(""));
    Sheet {
        title: "Lease".into(),
        above,
        head: STORY_HEAD.to_vec(),
        widths: STORY_WIDTHS.to_vec(),
        rows: story.map(entries).unwrap_or_default(),
        empty: "No entry that you may read.",
    }
}

fn of_events(events: &[pb::Event]) -> Sheet {
    Sheet {
        title: "Events, the newest first".into(),
        head: STORY_HEAD.to_vec(),
        widths: STORY_WIDTHS.to_vec(),
        rows: events.iter().map(event_row).collect(),
        empty: "No entry.",
        ..Sheet::default()
    }
}
