//! The table of resources.

use super::encode::{Access, Id, Int, Interned, Json, Map, Name, StateName, Text};
use super::intern::Interner;
use super::json::{DetailJson, absent};
use super::pool::CordonColumns;
use super::table::wrong;
use super::{Columns, Sink};
use crate::store::StoreError;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use wharfinger_core::{
    CauseChain, Cordon, Evidence, LeaseId, Op, Parent, Resource, ResourceId, ResourceState, Revision, Texts, Timestamp,
};

table! {
    "resources" as RESOURCE;
    text resource_columns!, resource_places!, resource_update!;
    fn write(resource: Resource, parent: ParentColumns, cordon: CordonColumns, state: StateColumns);
    fn read(resource: Resource, parent: ParentColumns, cordon: CordonColumns, state: StateColumns);
    id: Id = resource.id;
    revision: Int = resource.revision;
    state: Name = state.name;
    pool: Interned = resource.pool;
    item: Text = resource.item;
    labels: Map = resource.labels;
    slots: Int = resource.slots;
    parent_lease: Id = parent.lease;
    parent_host: Id = parent.host;
    cordoned_by: Text = cordon.by;
    cordon_reason: Text = cordon.reason;
    created_at: Int = resource.created_at;
    ready_at: Int = resource.ready_at;
    idle_since: Int = resource.idle_since;
    uses: Int = resource.uses;
    handle: Text = resource.handle;
    access: Access = resource.access;
    ends_at: Int = resource.ends_at;
    trouble: Text = resource.trouble;
    op: Int = state.op;
    attempt: Int = state.attempt;
    retry_at: Int = state.retry_at;
    since: Int = state.since;
    cause: Json = state.cause;
    detail: Json = state.detail;
    found: Map = resource.found;
    at_risk: Json = resource.at_risk;
    kept: Json = resource.hold;
    failures: Json = resource.failures;
    announced: Json = resource.announced;
    evidence: Json = resource.evidence;
    last_tenant: Interned = resource.last_tenant;
    held_for: Interned = resource.held_for;
    note: Json = resource.note;
}

/// The parent of a resource in columns.
#[derive(Default)]
struct ParentColumns {
    lease: Option<LeaseId>,
    host: Option<ResourceId>,
}

/// The state of a resource in columns. Which of them have a value depends on the state.
struct StateColumns {
    name: StateName<ResourceState>,
    op: Option<Op>,
    attempt: Option<u32>,
    retry_at: Option<Timestamp>,
    since: Option<Timestamp>,
    cause: Option<CauseChain>,
    detail: Option<DetailJson>,
}

impl StateColumns {
    fn of(state: &ResourceState) -> Self {
        let none = StateColumns {
            name: StateName::new(state.as_str()),
            op: None,
            attempt: None,
            retry_at: None,
            since: None,
            cause: None,
            detail: None,
        };
        match state {
            ResourceState::Ready => none,
            ResourceState::Provisioning { op, attempt, retry_at } => {
                StateColumns { op: *op, attempt: Some(*attempt), retry_at: *retry_at, ..none }
            }
            ResourceState::Suspect { since, cause, op, retry_at, misses, first_miss, repairs, held } => StateColumns {
                op: *op,
                retry_at: *retry_at,
                since: Some(*since),
                cause: Some(cause.clone()),
                detail: Some(DetailJson {
                    misses: Some(*misses),
                    first_miss: first_miss.map(|at| at.0),
                    repairs: Some(*repairs),
                    held: held.clone(),
                    ..DetailJson::default()
                }),
                ..none
            },
            ResourceState::Repairing { op, cause, repairs } => StateColumns {
                op: Some(*op),
                cause: Some(cause.clone()),
                detail: Some(DetailJson { repairs: Some(*repairs), ..DetailJson::default() }),
                ..none
            },
            ResourceState::Quarantined { cordon, since, until } => StateColumns {
                since: Some(*since),
                detail: Some(DetailJson {
                    by: Some(cordon.by.clone()),
                    reason: Some(cordon.reason.clone()),
                    until: until.map(|at| at.0),
                    ..DetailJson::default()
                }),
                ..none
            },
            ResourceState::Draining { cause, deadline } => StateColumns {
                cause: Some(cause.clone()),
                detail: Some(DetailJson { deadline: deadline.map(|at| at.0), ..DetailJson::default() }),
                ..none
            },
            ResourceState::Destroying { op, attempt, retry_at, cause, dead } => StateColumns {
                op: *op,
                attempt: Some(*attempt),
                retry_at: *retry_at,
                cause: Some(cause.clone()),
                detail: Some(DetailJson { dead: Some(*dead), ..DetailJson::default() }),
                ..none
            },
            ResourceState::Orphaned { op, attempt, retry_at, cause } => StateColumns {
                op: *op,
                attempt: Some(*attempt),
                retry_at: *retry_at,
                cause: Some(cause.clone()),
                ..none
            },
            ResourceState::Gone { at, cause } => StateColumns { since: Some(*at), cause: Some(cause.clone()), ..none },
        }
    }

    /// The error names the column and what is wrong with it.
    fn state(self) -> Result<ResourceState, (&'static str, String)> {
        let null = |column| move || (column, "is NULL".to_owned());
        let part = |name| move || ("detail", absent(name));
        let StateColumns { name: _, op, attempt, retry_at, since, cause, detail } = self;
        let detail = detail.unwrap_or_default();
        Ok(match self.name.as_str() {
            "READY" => ResourceState::Ready,
            "PROVISIONING" => {
                ResourceState::Provisioning { op, attempt: attempt.ok_or_else(null("attempt"))?, retry_at }
            }
            "SUSPECT" => ResourceState::Suspect {
                since: since.ok_or_else(null("since"))?,
                cause: cause.ok_or_else(null("cause"))?,
                op,
                retry_at,
                misses: detail.misses.ok_or_else(part("misses"))?,
                first_miss: detail.first_miss.map(Timestamp),
                repairs: detail.repairs.ok_or_else(part("repairs"))?,
                held: detail.held,
            },
            "REPAIRING" => ResourceState::Repairing {
                op: op.ok_or_else(null("op"))?,
                cause: cause.ok_or_else(null("cause"))?,
                repairs: detail.repairs.ok_or_else(part("repairs"))?,
            },
            "QUARANTINED" => ResourceState::Quarantined {
                cordon: Cordon {
                    by: detail.by.ok_or_else(part("by"))?,
                    reason: detail.reason.ok_or_else(part("reason"))?,
                },
                since: since.ok_or_else(null("since"))?,
                until: detail.until.map(Timestamp),
            },
            "DRAINING" => ResourceState::Draining {
                cause: cause.ok_or_else(null("cause"))?,
                deadline: detail.deadline.map(Timestamp),
            },
            "DESTROYING" => ResourceState::Destroying {
                op,
                attempt: attempt.ok_or_else(null("attempt"))?,
                retry_at,
                cause: cause.ok_or_else(null("cause"))?,
                dead: detail.dead.ok_or_else(part("dead"))?,
            },
            "ORPHANED" => ResourceState::Orphaned {
                op,
                attempt: attempt.ok_or_else(null("attempt"))?,
                retry_at,
                cause: cause.ok_or_else(null("cause"))?,
            },
            // The last of the known names.
            _ => ResourceState::Gone { at: since.ok_or_else(null("since"))?, cause: cause.ok_or_else(null("cause"))? },
        })
    }
}

/// Writes a resource, in the order of [`RESOURCE`].
pub(in crate::store) fn encode_resource(resource: &Resource, sink: &mut impl Sink) {
    let parent = ParentColumns {
        lease: resource.parent.map(|parent| parent.lease),
        host: resource.parent.and_then(|parent| parent.host),
    };
    let cordon = CordonColumns::of(resource.cordoned.as_ref());
    write(resource, &parent, &cordon, &StateColumns::of(&resource.state), sink);
}

/// A resource whose values are all replaced when it is read.
static BLANK: LazyLock<Resource> = LazyLock::new(|| Resource {
    id: ResourceId::new(1),
    revision: Revision(0),
    pool: Arc::from(""),
    item: None,
    labels: Texts::new(),
    found: Texts::new(),
    slots: 0,
    parent: None,
    state: ResourceState::Ready,
    cordoned: None,
    created_at: Timestamp(0),
    ready_at: None,
    idle_since: None,
    uses: 0,
    handle: None,
    access: Arc::default(),
    ends_at: None,
    announced: BTreeMap::new(),
    trouble: None,
    at_risk: None,
    hold: None,
    failures: Vec::new(),
    evidence: Evidence::default(),
    last_tenant: None,
    held_for: None,
    note: None,
});

/// Reads a resource whose columns are those of [`RESOURCE`].
pub(in crate::store) fn decode_resource(row: &impl Columns, interner: &mut Interner) -> Result<Resource, StoreError> {
    let mut resource = BLANK.clone();
    let (mut parent, mut cordon) = (ParentColumns::default(), CordonColumns::default());
    let mut state = StateColumns::of(&ResourceState::Ready);
    read(&mut resource, &mut parent, &mut cordon, &mut state, row, interner)?;
    let refuse = |(column, what): (&'static str, String)| wrong("resources", row, column, &what);
    resource.parent = match (parent.lease, parent.host) {
        (Some(lease), host) => Some(Parent { lease, host }),
        (None, None) => None,
        (None, Some(_)) => return Err(refuse(("parent_host", "goes only together with parent_lease".to_owned()))),
    };
    resource.cordoned = cordon.cordon().map_err(refuse)?;
    resource.state = state.state().map_err(refuse)?;
    Ok(resource)
}
