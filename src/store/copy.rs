//! Copies of a whole store: into another store, or into a file and back. Active leases, tokens, revisions and the audit trail are
//! kept, so that holders, watches and repeated requests find no change.
//!
//! A dump is text with one JSON value a line: a header that names the columns, the audit trail, pools, machines, sessions, resources, leases, and a
//! last line with their numbers, by which an incomplete file is detected.

use super::row::{
    Array, Cells, Column, EVENT, Interner, LEASE, MACHINE, POOL, RESOURCE, SESSION, decode_event, decode_lease,
    decode_machine, decode_pool, decode_resource, decode_session, encode_event, encode_lease, encode_machine,
    encode_pool, encode_resource, encode_session, rows,
};
use super::{CommitError, EventQuery, Store, StoreError, StoredEvent, TrailPlace};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, Write};
use std::sync::Arc;
use wharfinger_core::{
    Batch, Event, EventKind, Lease, LeaseId, Machine, PoolRow, Resource, ResourceId, Revision, Session, SessionId,
    Snapshot, Subject, Timestamp,
};

/// Maximum number of rows of one commit.
const CHUNK: usize = 1000;
/// Version of the format. A newer one is refused.
const VERSION: u32 = 1;

/// The numbers of copied rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Leases, also those that have ended.
    pub leases: usize,
    /// Resources, also those that are gone.
    pub resources: usize,
    /// Pools with settings of an operator.
    pub pools: usize,
    /// Machines with orders of an operator.
    #[serde(default, skip_serializing_if = "none")]
    pub machines: usize,
    /// Open sessions.
    #[serde(default, skip_serializing_if = "none")]
    pub sessions: usize,
    /// Entries of the audit trail.
    pub events: usize,
}

/// Dumps of older versions have no number of machines and sessions.
fn none(count: &usize) -> bool {
    *count == 0
}

/// The reason why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// An error of one of the stores.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The file cannot be read or written.
    #[error("the dump cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// The file is not a dump, or is incomplete.
    #[error("line {line} of the dump: {what}")]
    Dump {
        /// The line, from 1 on.
        line: usize,
        /// The error in that line.
        what: String,
    },
    /// A server has written to the original meanwhile.
    #[error("the original has changed meanwhile, from revision {from} to {to}: stop its server, and do it again")]
    Changed {
        /// The revision of the copy.
        from: Revision,
        /// The current revision of the original.
        to: Revision,
    },
    /// The copy that was read back differs from the original.
    #[error("the copy is not what it was made from ({0}): report this, and go on with the original")]
    Differs(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    wharfinger_dump: u32,
    revision: u64,
    floor: u64,
    now_ms: i64,
    salt: u16,
    leases: Vec<String>,
    resources: Vec<String>,
    pools: Vec<String>,
    /// Older versions had none.
    #[serde(default)]
    machines: Vec<String>,
    #[serde(default)]
    sessions: Vec<String>,
    events: Vec<String>,
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.name.to_owned()).collect()
}

/// The source of the audit trail, oldest entries first.
enum Trail<'s> {
    Store { store: &'s dyn Store, after: Revision, to: Revision },
    Read(std::vec::IntoIter<StoredEvent>),
}

impl Trail<'_> {
    /// The next entries; empty at the end. The entries of one revision stay together.
    async fn next(&mut self) -> Result<Vec<StoredEvent>, CopyError> {
        match self {
            Trail::Read(all) => Ok(all.by_ref().take(CHUNK).collect()),
            Trail::Store { store, after, to } => {
                let query =
                    EventQuery { after: *after, to: Some(*to), limit: EventQuery::MAX, ..EventQuery::default() };
                let mut page = store.events(&query).await?;
                if page.len() == EventQuery::MAX
                    && let Some(last) = page.last().map(|event| event.revision)
                {
                    // The rest of that revision may be missing.
                    page.retain(|event| event.revision < last);
                    if page.is_empty() {
                        let what =
                            format!("revision {last} has more than {} entries in the audit trail", EventQuery::MAX);
                        return Err(StoreError::Corrupt(what).into());
                    }
                }
                if let Some(last) = page.last() {
                    *after = Revision(last.revision);
                }
                Ok(page)
            }
        }
    }
}

/// Copies a whole store into an empty one, and compares both.
///
/// # Errors
/// [`CopyError::Store`]; [`CopyError::Changed`] if a server writes to the original; [`CopyError::Differs`] if the copy differs.
pub async fn copy(from: &dyn Store, to: &dyn Store) -> Result<Copied, CopyError> {
    let snapshot = from.load().await?;
    let revision = snapshot.revision;
    let trail = Trail::Store { store: from, after: Revision(0), to: revision };
    let copied = fill(to, snapshot, trail, from.trail_places().await?).await?;
    let now = from.changes_since(revision, 1).await?.revision;
    if now == revision { Ok(copied) } else { Err(CopyError::Changed { from: revision, to: now }) }
}

async fn fill(
    to: &dyn Store,
    snapshot: Snapshot,
    mut trail: Trail<'_>,
    places: Vec<TrailPlace>,
) -> Result<Copied, CopyError> {
    let target = to.load().await?;
    if target.revision != Revision(0) || !target.leases.is_empty() || !target.resources.is_empty() {
        let what = "the store to copy into is not empty: name another, or take it away first".to_owned();
        return Err(StoreError::Configuration(what).into());
    }
    let epoch = to.acquire().await?;
    to.set_deployment_salt(snapshot.salt).await?;
    let mut copied = Copied {
        leases: snapshot.leases.len(),
        resources: snapshot.resources.len(),
        pools: snapshot.pools.len(),
        machines: snapshot.machines.len(),
        sessions: snapshot.sessions.len(),
        events: 0,
    };
    let mut base = Revision(0);
    let mut written = DefaultHasher::new();
    loop {
        let page = trail.next().await?;
        if page.is_empty() {
            break;
        }
        copied.events += page.len();
        for chunk in page.chunks(CHUNK) {
            let mut events = Vec::with_capacity(chunk.len());
            for event in chunk {
                hash(event, &mut written);
                events.push(entry(event)?);
            }
            let revision = chunk.last().map_or(base, |event| Revision(event.revision));
            commit(to, Batch { base, revision, events, ..Batch::default() }, epoch).await?;
            base = revision;
        }
    }
    for chunk in snapshot.resources.chunks(CHUNK) {
        let resources = chunk.iter().cloned().map(Arc::new).collect();
        commit(to, Batch { base, revision: base, resources, ..Batch::default() }, epoch).await?;
    }
    for chunk in snapshot.leases.chunks(CHUNK) {
        let leases = chunk.iter().cloned().map(Arc::new).collect();
        commit(to, Batch { base, revision: base, leases, ..Batch::default() }, epoch).await?;
    }
    let last = Batch {
        base,
        revision: snapshot.revision,
        floor: snapshot.floor,
        now: snapshot.now,
        pools: snapshot.pools.iter().cloned().map(Arc::new).collect(),
        machines: snapshot.machines.iter().cloned().map(Arc::new).collect(),
        sessions: snapshot.sessions.iter().cloned().map(Arc::new).collect(),
        ..Batch::default()
    };
    commit(to, last, epoch).await?;

    if sorted(to.load().await?) != sorted(snapshot) {
        return Err(CopyError::Differs("leases, resources, pools, machines or sessions"));
    }
    let mut read = DefaultHasher::new();
    let mut again = Trail::Store { store: to, after: Revision(0), to: Revision(i64::MAX as u64) };
    loop {
        let page = again.next().await?;
        if page.is_empty() {
            break;
        }
        page.iter().for_each(|event| hash(event, &mut read));
    }
    if read.finish() != written.finish() {
        return Err(CopyError::Differs("the audit trail"));
    }
    for place in places {
        to.set_trail_place(&place).await?;
    }
    Ok(copied)
}

async fn commit(to: &dyn Store, batch: Batch, epoch: super::Epoch) -> Result<(), StoreError> {
    to.commit(&batch, epoch).await.map_err(|error| match error {
        CommitError::NotCommitted(error) | CommitError::InDoubt(error) => error,
        CommitError::Deposed { current } => StoreError::Deposed { current },
    })
}

fn sorted(mut snapshot: Snapshot) -> Snapshot {
    snapshot.leases.sort_by_key(|lease| lease.id);
    snapshot.resources.sort_by_key(|resource| resource.id);
    snapshot.pools.sort_by(|a, b| a.name.cmp(&b.name));
    snapshot.machines.sort_by(|a, b| a.key.cmp(&b.key));
    snapshot.sessions.sort_by_key(|session| session.id);
    snapshot
}

fn hash(event: &StoredEvent, hasher: &mut DefaultHasher) {
    (event.revision, event.ordinal, event.at_unix_ms, &event.kind, &event.actor, &event.subject).hash(hasher);
    (&event.pool, event.resource, event.lease, &event.detail, &event.caller).hash(hasher);
}

/// The entry of the core that was stored as this one.
fn entry(event: &StoredEvent) -> Result<Event, StoreError> {
    let text = &event.subject;
    let subject = match (text.parse::<LeaseId>(), text.parse::<ResourceId>(), text.parse::<SessionId>()) {
        (Ok(lease), _, _) => Subject::Lease(lease),
        (_, Ok(resource), _) => Subject::Resource(resource),
        (_, _, Ok(session)) => Subject::Session(session),
        (Err(_), Err(_), Err(_)) => Subject::Pool(Arc::from(&**text)),
    };
    let kind = EventKind::parse(&event.kind).ok_or_else(|| {
        StoreError::Corrupt(format!(
            "the audit trail has an entry of the kind {:?}, which this version does not know: copy the store with the \
             version that wrote it",
            event.kind
        ))
    })?;
    Ok(Event {
        revision: Revision(event.revision),
        at: Timestamp(event.at_unix_ms),
        kind,
        actor: Arc::from(&*event.actor),
        subject,
        pool: event.pool.as_deref().map(Arc::from),
        resource: event.resource,
        lease: event.lease,
        detail: Arc::from(&*event.detail),
        caller: event.caller.clone(),
    })
}

/// Writes a whole store as text, as of one revision.
///
/// # Errors
/// [`CopyError::Store`], [`CopyError::Io`].
pub async fn dump(from: &dyn Store, out: &mut (dyn Write + Send)) -> Result<Copied, CopyError> {
    let snapshot = from.load().await?;
    let header = Header {
        wharfinger_dump: VERSION,
        revision: snapshot.revision.0,
        floor: snapshot.floor.0,
        now_ms: snapshot.now.0,
        salt: snapshot.salt,
        leases: names(LEASE),
        resources: names(RESOURCE),
        pools: names(POOL),
        machines: names(MACHINE),
        sessions: names(SESSION),
        events: names(EVENT),
    };
    line(out, &header)?;
    let mut copied = Copied::default();
    let mut trail = Trail::Store { store: from, after: Revision(0), to: snapshot.revision };
    loop {
        let page = trail.next().await?;
        if page.is_empty() {
            break;
        }
        for event in page {
            let mut array = Array::default();
            encode_event(&entry(&event)?, event.ordinal.cast_signed(), &mut array);
            line(out, &("event", array.0))?;
            copied.events += 1;
        }
    }
    for pool in &snapshot.pools {
        let mut array = Array::default();
        encode_pool(pool, &mut array);
        line(out, &("pool", array.0))?;
        copied.pools += 1;
    }
    for machine in &snapshot.machines {
        let mut array = Array::default();
        encode_machine(machine, &mut array);
        line(out, &("machine", array.0))?;
        copied.machines += 1;
    }
    for session in &snapshot.sessions {
        let mut array = Array::default();
        encode_session(session, &mut array);
        line(out, &("session", array.0))?;
        copied.sessions += 1;
    }
    for resource in &snapshot.resources {
        let mut array = Array::default();
        encode_resource(resource, &mut array);
        line(out, &("resource", array.0))?;
        copied.resources += 1;
    }
    for lease in &snapshot.leases {
        let mut array = Array::default();
        encode_lease(lease, &mut array);
        line(out, &("lease", array.0))?;
        copied.leases += 1;
    }
    for place in from.trail_places().await? {
        line(out, &("reader", place))?;
    }
    line(out, &("end", copied))?;
    out.flush()?;
    Ok(copied)
}

fn line(out: &mut (dyn Write + Send), value: &impl Serialize) -> Result<(), CopyError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Whether servers have committed since a dump was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// No server has committed since. Revisions go on from the dump.
    Last,
    /// Servers have committed since, and these commits are lost. Revisions go on far ahead of any that was used, so that fencing
    /// tokens still grow and hosts refuse older ones. Watches start again from the current state.
    Stale,
}

/// The distance to the next revision: more than are used between two dumps.
const AHEAD: u64 = 1 << 32;

/// Reads a dump into an empty store, and compares both. It writes nothing unless the dump is complete.
///
/// # Errors
/// Any [`CopyError`].
pub async fn read_dump(input: &mut (dyn BufRead + Send), to: &dyn Store, age: Age) -> Result<Copied, CopyError> {
    let (mut snapshot, events, places) = parse(input)?;
    if age == Age::Stale {
        snapshot.revision = Revision(snapshot.revision.0 + AHEAD);
        snapshot.floor = snapshot.revision;
    }
    fill(to, snapshot, Trail::Read(events.into_iter()), places).await
}

fn parse(input: &mut dyn BufRead) -> Result<(Snapshot, Vec<StoredEvent>, Vec<TrailPlace>), CopyError> {
    let mut text = String::new();
    input.read_line(&mut text)?;
    let wrong = |line: usize, what: String| CopyError::Dump { line, what };
    let header: Header = serde_json::from_str(&text)
        .map_err(|error| wrong(1, format!("this is no dump of a wharfinger, or one of a newer version: {error}")))?;
    if header.wharfinger_dump > VERSION {
        return Err(wrong(1, format!("it is of version {}, this wharfinger reads {VERSION}", header.wharfinger_dump)));
    }
    let tables = [
        (&header.leases, LEASE),
        (&header.resources, RESOURCE),
        (&header.pools, POOL),
        (&header.events, EVENT),
        (&header.machines, MACHINE),
        (&header.sessions, SESSION),
    ];
    for (theirs, ours) in tables {
        // New columns stand behind the others.
        let known = theirs.len() <= ours.len() && theirs.iter().zip(ours).all(|(theirs, ours)| theirs == ours.name);
        if !known {
            return Err(wrong(1, "it was made by a newer wharfinger: restore with that one".into()));
        }
    }
    let mut snapshot = Snapshot {
        revision: Revision(header.revision),
        floor: Revision(header.floor),
        now: Timestamp(header.now_ms),
        salt: header.salt,
        ..Snapshot::default()
    };
    let (mut events, mut places) = (Vec::new(), Vec::new());
    let mut interner = Interner::new();
    let mut number = 1;
    loop {
        number += 1;
        text.clear();
        if input.read_line(&mut text)? == 0 {
            return Err(wrong(number, "it ends here, before its end: it is not whole".into()));
        }
        let (kind, row) = split(&text).ok_or_else(|| wrong(number, "this is no row".into()))?;
        let unreadable = |error: String| wrong(number, error);
        if kind == "end" {
            let counted: Copied = serde_json::from_str(row).map_err(|error| unreadable(error.to_string()))?;
            let found = Copied {
                leases: snapshot.leases.len(),
                resources: snapshot.resources.len(),
                pools: snapshot.pools.len(),
                machines: snapshot.machines.len(),
                sessions: snapshot.sessions.len(),
                events: events.len(),
            };
            if counted != found {
                return Err(wrong(number, format!("it should have {counted:?}, and has {found:?}")));
            }
            return Ok((snapshot, events, places));
        }
        if kind == "reader" {
            places.push(serde_json::from_str(row).map_err(|error| unreadable(error.to_string()))?);
            continue;
        }
        let cells = rows(row).next().ok_or_else(|| unreadable("an empty row".into()))?;
        let cells: Cells<'_> = cells.map_err(|error| unreadable(error.to_string()))?;
        let said = |error: StoreError| unreadable(error.to_string());
        match kind {
            "event" => events.push(decode_event(&cells.padded(EVENT.len()), &mut interner).map_err(said)?),
            "pool" => {
                let pool: PoolRow = decode_pool(&cells.padded(POOL.len()), &mut interner).map_err(said)?;
                snapshot.pools.push(pool);
            }
            "machine" => {
                let machine: Machine = decode_machine(&cells.padded(MACHINE.len()), &mut interner).map_err(said)?;
                snapshot.machines.push(machine);
            }
            "session" => {
                let session: Session = decode_session(&cells.padded(SESSION.len()), &mut interner).map_err(said)?;
                snapshot.sessions.push(session);
            }
            "resource" => {
                let resource: Resource = decode_resource(&cells.padded(RESOURCE.len()), &mut interner).map_err(said)?;
                snapshot.resources.push(resource);
            }
            "lease" => {
                let lease: Lease = decode_lease(&cells.padded(LEASE.len()), &mut interner).map_err(said)?;
                snapshot.leases.push(lease);
            }
            other => return Err(unreadable(format!("there is no kind of row {other:?}"))),
        }
    }
}

/// Splits `["kind",…]` into the kind and the rest.
fn split(text: &str) -> Option<(&str, &str)> {
    let (kind, row) = text.trim_end().strip_prefix("[\"")?.split_once("\",")?;
    Some((kind, row.strip_suffix(']')?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{LEASE_STATES, RESOURCE_STATES, Samples, event};
    use crate::store::{Changes, Epoch, MemoryStore};

    #[test]
    fn an_entry_of_an_unknown_kind_is_refused_by_its_name() {
        let known = StoredEvent { kind: "lease.active".into(), subject: "hosts".into(), ..StoredEvent::default() };
        assert_eq!(entry(&known).unwrap().kind, EventKind::LeaseActive);
        let unknown = StoredEvent { kind: "lease.unheard-of".into(), ..known };
        let error = entry(&unknown).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt(why) if why.contains("lease.unheard-of")), "{error:?}");
    }

    /// A store with rows of every kind, more than a chunk of each.
    async fn full() -> MemoryStore {
        let store = MemoryStore::with_salt(77);
        let epoch = store.acquire().await.unwrap();
        let mut samples = Samples::new(5);
        let count = 2500;
        let mut batch = Batch {
            base: Revision(0),
            revision: Revision(count + 9),
            now: Timestamp(123_456),
            floor: Revision(7),
            ..Batch::default()
        };
        for n in 1..=count {
            batch.leases.push(Arc::new(samples.lease(n % LEASE_STATES, n)));
            if n % 3 == 0 {
                batch.resources.push(Arc::new(samples.resource(n % RESOURCE_STATES, n)));
            }
            for _ in 0..n % 3 {
                batch.events.push(event(n, Subject::Lease(LeaseId::new(u128::from(n)))));
            }
            batch.events.push(event(n, Subject::Pool(Arc::from("linux"))));
        }
        batch.pools.push(Arc::new(samples.pool("linux", count)));
        batch.machines.push(Arc::new(samples.machine("builder-1", count)));
        batch.sessions.push(Arc::new(samples.session(count)));
        batch.events.push(event(count, Subject::Session(batch.sessions[0].id)));
        store.commit(&batch, epoch).await.unwrap();
        store
    }

    async fn trail(store: &dyn Store) -> Vec<StoredEvent> {
        let mut all = Vec::new();
        let mut pages = Trail::Store { store, after: Revision(0), to: Revision(i64::MAX as u64) };
        loop {
            let page = pages.next().await.unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    async fn same(a: &dyn Store, b: &dyn Store) {
        assert!(sorted(a.load().await.unwrap()) == sorted(b.load().await.unwrap()));
        assert!(trail(a).await == trail(b).await);
    }

    #[tokio::test]
    async fn a_store_is_copied_into_another_kind_and_back() {
        let memory = full().await;
        let folder = tempfile::tempdir().unwrap();
        let sqlite = crate::store::SqliteStore::open(&folder.path().join("w.db")).await.unwrap();
        let copied = copy(&memory, &sqlite).await.unwrap();
        assert_eq!((copied.leases, copied.resources, copied.pools, copied.machines), (2500, 833, 1, 1));
        assert_eq!(copied.sessions, 1);
        same(&memory, &sqlite).await;
        #[cfg(feature = "postgres")]
        if let Some(settings) = crate::store::postgres::testing::settings().await {
            let postgres = crate::store::PostgresStore::open(&settings).await.unwrap();
            assert_eq!(copy(&sqlite, &postgres).await.unwrap(), copied);
            same(&memory, &postgres).await;
            let back = MemoryStore::new();
            assert_eq!(copy(&postgres, &back).await.unwrap(), copied);
            same(&memory, &back).await;
        }
        let refused = copy(&memory, &sqlite).await.unwrap_err().to_string();
        assert!(refused.contains("is not empty"), "{refused}");
    }

    /// Writes to the original while it is copied, as a server does that was not stopped.
    struct Busy(MemoryStore, Epoch);

    #[async_trait::async_trait]
    impl Store for Busy {
        async fn acquire(&self) -> Result<Epoch, StoreError> {
            self.0.acquire().await
        }
        async fn load(&self) -> Result<Snapshot, StoreError> {
            let found = self.0.load().await;
            let base = self.0.load_now().revision;
            let lease = Arc::new(Samples::new(99).lease(0, base.0 + 1));
            let more = Batch { base, revision: Revision(base.0 + 1), leases: vec![lease], ..Batch::default() };
            self.0.commit_now(&more, self.1).expect("nobody else writes");
            found
        }
        async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
            self.0.commit(batch, epoch).await
        }
        async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
            self.0.changes_since(after, limit).await
        }
        async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
            self.0.events(query).await
        }
    }

    #[tokio::test]
    async fn an_original_that_changes_is_not_moved() {
        let original = full().await;
        let epoch = original.acquire_now();
        let error = copy(&Busy(original, epoch), &MemoryStore::new()).await.unwrap_err();
        assert!(matches!(error, CopyError::Changed { .. }) && error.to_string().contains("stop its server"), "{error}");
    }

    #[tokio::test]
    async fn a_dump_is_read_back() {
        let memory = full().await;
        let mut text = Vec::new();
        let copied = dump(&memory, &mut text).await.unwrap();
        let back = MemoryStore::new();
        assert_eq!(read_dump(&mut &text[..], &back, Age::Last).await.unwrap(), copied);
        same(&memory, &back).await;
        let mut again = Vec::new();
        dump(&back, &mut again).await.unwrap();
        assert!(text == again, "the same text");
    }

    #[tokio::test]
    async fn keys_in_a_dump_of_an_older_version_are_not_restored() {
        const KEY: &str = "PRIVATE-KEY-a61f";
        let memory = MemoryStore::new();
        let mut lease = Samples::new(1).lease(2, 1);
        let wharfinger_core::LeaseState::Active { access, .. } = &mut lease.state else { panic!("{lease:?}") };
        Arc::make_mut(access).insert("private_key".into(), KEY.into());
        let batch = Batch { revision: Revision(1), leases: vec![Arc::new(lease)], ..Batch::default() };
        let epoch = memory.acquire().await.unwrap();
        memory.commit(&batch, epoch).await.unwrap();
        let mut text = Vec::new();
        dump(&memory, &mut text).await.unwrap();
        assert!(String::from_utf8_lossy(&text).contains(KEY));

        let back = MemoryStore::new();
        assert_eq!(read_dump(&mut &text[..], &back, Age::Last).await.unwrap().leases, 1);
        let mut again = Vec::new();
        dump(&back, &mut again).await.unwrap();
        let again = String::from_utf8(again).unwrap();
        assert!(again.contains("ACTIVE") && !again.contains(KEY), "{again}");
    }

    #[tokio::test]
    async fn an_old_dump_goes_on_far_ahead() {
        let memory = full().await;
        let mut text = Vec::new();
        dump(&memory, &mut text).await.unwrap();
        let back = MemoryStore::new();
        read_dump(&mut &text[..], &back, Age::Stale).await.unwrap();
        let (before, after) = (memory.load_now(), back.load_now());
        assert_eq!(after.revision.0, before.revision.0 + AHEAD);
        assert_eq!((after.leases, after.salt), (before.leases, before.salt));
        assert_eq!(after.floor, after.revision, "a watch starts again");
    }

    #[tokio::test]
    async fn an_incomplete_dump_is_refused_and_nothing_written() {
        let mut text = Vec::new();
        dump(&full().await, &mut text).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let cut = lines[..lines.len() - 1].join("\n") + "\n";
        let mut dropped = lines.clone();
        dropped.remove(5);
        let swapped = text.replacen("\"QUEUED\"", "\"DREAMING\"", 1);
        let newer = text.replacen("\"wharfinger_dump\":1", "\"wharfinger_dump\":2", 1);
        let wider = text.replacen("\"work\"", "\"work\",\"more\"", 1);
        for (wrong, said) in [
            (String::new(), "no dump"),
            ("{}\n".into(), "no dump"),
            (cut, "not whole"),
            (dropped.join("\n"), "should have"),
            (swapped, "column state"),
            (newer, "version 2"),
            (wider, "newer wharfinger"),
        ] {
            let store = MemoryStore::new();
            let error = read_dump(&mut wrong.as_bytes(), &store, Age::Last).await.unwrap_err();
            assert!(matches!(error, CopyError::Dump { .. }) && error.to_string().contains(said), "{error}");
            assert_eq!(store.load_now().revision, Revision(0));
        }
    }
}
