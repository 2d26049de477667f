//! The task that exports: a reader of the audit trail, on the server that leads.

use super::cleaned::Cleaned;
use super::export::{ExportError, Exporter};
use super::ids::TraceParent;
use super::settings::{TraceSettings, Unparented};
use super::story::{self, Facts, Span};
use crate::backoff::Backoff;
use crate::clock::{Moment, wall_ms};
use crate::engine::{Handle, Role};
use crate::store::{EventQuery, Store, StoreError, StoredEvent, TrailPlace, TrailReader};
use crate::telemetry::metrics::Told;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharfinger_core::{Core, LeaseId, LeaseState, ResourceId, Revision};

/// The name of the reader.
const READER: &str = "traces";
/// Time after which the trail is read again without a hint.
const POLL: Duration = Duration::from_secs(1);
/// Time between two looks at slots that are being cleaned.
const LOOK: Duration = Duration::from_millis(100);
/// Maximum time for which the spans of a lease wait for the end of its cleaning.
const CLEANING: Duration = Duration::from_secs(120);
/// Age of spans after which they are given up.
const GIVE_UP: Duration = Duration::from_secs(3600);
/// Number of attempts for spans that the collector refuses.
const REFUSALS: u32 = 3;
/// Maximum number of traces that are known while their leases live. Those of others are looked up at their end.
const KNOWN: usize = 100_000;
/// Maximum number of leases whose spans are exported at once, or wait for the end of cleaning.
const AT_ONCE: usize = 512;
/// Maximum number of entries of one lease, and of its resource, from which spans are made.
const ENTRIES: usize = 1000;
/// Maximum number of broken leases through which the trace of a replacement is looked for.
const CHAIN: usize = 8;
/// Maximum time for which the rows of leases are waited for.
const ENGINE_PATIENCE: Duration = Duration::from_secs(1);
/// Minimum time between two writes of the place to the store.
const SAVE: Duration = Duration::from_secs(1);
/// Maximum time that a stop waits for the place to be stored.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The parts of the server that traces use.
#[derive(Clone)]
pub struct Surroundings {
    /// The engine, for the rows of leases.
    pub handle: Handle,
    /// The store with the trail.
    pub store: Arc<dyn Store>,
    /// Meters of spans.
    pub told: Told,
    /// Times at which slots were clean.
    pub cleaned: Cleaned,
}

/// The task, if there is a collector.
#[derive(Default)]
pub struct Traces {
    settings: Option<TraceSettings>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Traces {
    /// Exports to the collector of these settings in place of the present one. `None`: to none; the place in the trail is forgotten.
    pub async fn change(&mut self, settings: Option<&TraceSettings>, around: &Surroundings) {
        if self.settings.as_ref() == settings && (self.task.is_some() || settings.is_none()) {
            return;
        }
        self.stop().await;
        around.cleaned.want(settings.is_some());
        self.settings = settings.cloned();
        let Some(settings) = settings else {
            if let Err(error) = around.store.forget_trail_place(READER).await {
                tracing::warn!(%error, "the place of the traces in the trail cannot be forgotten");
            }
            return;
        };
        self.stop = CancellationToken::new();
        self.task = Some(tokio::spawn(Runner::new(settings.clone(), around.clone(), self.stop.clone()).run()));
    }

    /// Ends the task and stores its place.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.settings = None;
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(STOP_PATIENCE, task).await;
        }
    }
}

/// The task ends with the server that leads, also if it does so by an error.
impl Drop for Traces {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The reason why the task ends or begins again.
enum Stop {
    Asked,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A lease that has ended, and whose slot is still being cleaned.
struct Pending {
    lease: LeaseId,
    end: StoredEvent,
    since: Moment,
}

/// A lease, and the resource that the entry of its end names.
type Subject = (LeaseId, Option<ResourceId>);

/// The row of a lease, as far as spans need it.
#[derive(Clone, Debug, Default)]
struct Row {
    machine: Option<String>,
    holder: Option<String>,
    replaces: Option<LeaseId>,
    cleaning: bool,
}

struct Runner {
    settings: TraceSettings,
    around: Surroundings,
    stop: CancellationToken,
    exporter: Exporter,
    /// The traces of leases that live, of requests that this task has read. `None`: the caller gave none.
    known: HashMap<LeaseId, Option<TraceParent>>,
    pending: VecDeque<Pending>,
    failing: bool,
    saved: Moment,
}

impl Runner {
    fn new(settings: TraceSettings, around: Surroundings, stop: CancellationToken) -> Self {
        Self {
            exporter: Exporter::new(settings.clone()),
            settings,
            around,
            stop,
            known: HashMap::new(),
            pending: VecDeque::new(),
            failing: false,
            saved: Moment::now(),
        }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut said = false;
        loop {
            match self.carry(&mut backoff, &mut said).await {
                Stop::Asked => return,
                Stop::Store(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "the trail cannot be read for traces; trying again");
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(backoff.wait(None)) => {}
            }
        }
    }

    async fn carry(&mut self, backoff: &mut Backoff, said: &mut bool) -> Stop {
        let mut reader = match TrailReader::open(self.around.store.clone(), READER).await {
            Ok(reader) => reader,
            Err(error) => return Stop::Store(error),
        };
        backoff.reset();
        *said = false;
        self.known.clear();
        self.pending.clear();
        let mut cursor = reader.place().clone();
        loop {
            if let Err(stop) = self.step(&mut reader, &mut cursor).await {
                if let Err(error) = reader.save().await {
                    tracing::debug!(%error, "the place of the traces is not stored: some spans come again");
                }
                return stop;
            }
        }
    }

    /// Reads a page and exports what it ends, or waits for entries.
    async fn step(&mut self, reader: &mut TrailReader, cursor: &mut TrailPlace) -> Result<(), Stop> {
        if self.around.handle.leadership().role() != Role::Leading {
            return Err(Stop::Asked);
        }
        // Before the read: a commit after it is a hint.
        let mut hint = self.around.handle.hub().revision();
        hint.borrow_and_update();
        let room = self.pending.len() < AT_ONCE;
        let page = if room { reader.after(cursor).await? } else { Vec::new() };
        for event in &page {
            self.note(event);
        }
        let ended = page.iter().filter(|event| story::ends(event));
        self.pending.extend(
            ended.filter_map(|end| Some(Pending { lease: end.lease?, end: end.clone(), since: Moment::now() })),
        );
        if let Some(last) = page.last() {
            (cursor.revision, cursor.ordinal, cursor.at_unix_ms) = (last.revision, last.ordinal, last.at_unix_ms);
        }
        self.export_ended(reader).await?;
        self.pass(reader, cursor);
        if self.saved.past() >= SAVE {
            self.saved = Moment::now();
            reader.save().await?;
        }
        if page.is_empty() {
            let wait = if self.pending.is_empty() { POLL } else { LOOK };
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stop::Asked),
                _ = hint.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(())
    }

    /// Notes the trace of a request.
    fn note(&mut self, event: &StoredEvent) {
        let Some(lease) = event.lease.filter(|_| story::begins(event)) else { return };
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.entry(lease).or_insert_with(|| parent_in(event));
    }

    /// The place up to which nothing is pending.
    fn pass(&self, reader: &mut TrailReader, cursor: &TrailPlace) {
        match self.pending.iter().map(|pending| &pending.end).min_by_key(|end| (end.revision, end.ordinal)) {
            None => reader.pass_to(cursor.revision, cursor.ordinal, cursor.at_unix_ms),
            Some(StoredEvent { revision, ordinal: 0, at_unix_ms, .. }) => {
                reader.pass_to(revision.saturating_sub(1), i64::MAX.unsigned_abs(), *at_unix_ms);
            }
            Some(end) => reader.pass_to(end.revision, end.ordinal - 1, end.at_unix_ms),
        }
    }

    /// Exports the leases whose slots are clean.
    async fn export_ended(&mut self, reader: &TrailReader) -> Result<(), Stop> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // Most leases have no trace, and need no row.
        let (wanted, others): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(&mut self.pending).into_iter().partition(|one| self.may_want(one));
        self.pending = wanted.into();
        for one in others {
            self.known.remove(&one.lease);
        }
        let leases: Vec<Subject> = self.pending.iter().map(|pending| (pending.lease, pending.end.resource)).collect();
        let rows = self.rows(leases).await;
        let mut spans = Vec::new();
        let mut oldest = i64::MAX;
        let mut left = VecDeque::new();
        for pending in std::mem::take(&mut self.pending) {
            let row = rows.get(&pending.lease).cloned().unwrap_or_default();
            if row.cleaning && pending.since.past() < CLEANING {
                left.push_back(pending);
                continue;
            }
            self.known.remove(&pending.lease);
            oldest = oldest.min(pending.end.at_unix_ms);
            spans.extend(self.spans(reader, &pending, row).await?);
        }
        self.export(spans, oldest).await?;
        self.pending = left;
        Ok(())
    }

    /// Whether the spans of this lease may be exported. A lease whose request this task did not read may have a trace.
    fn may_want(&self, pending: &Pending) -> bool {
        match self.known.get(&pending.lease) {
            Some(Some(parent)) => parent.sampled,
            Some(None) => self.wants_unparented(&pending.end),
            None => true,
        }
    }

    fn wants_unparented(&self, end: &StoredEvent) -> bool {
        match self.settings.unparented {
            Unparented::None => false,
            Unparented::Failed => story::fails(end),
            Unparented::All => true,
        }
    }

    async fn rows(&self, leases: Vec<Subject>) -> HashMap<LeaseId, Row> {
        if leases.is_empty() {
            return HashMap::new();
        }
        let read = self.around.handle.read(move |core, _| {
            leases.into_iter().filter_map(|one| Some((one.0, row(core, one)?))).collect::<HashMap<_, _>>()
        });
        // Without an answer spans have fewer attributes.
        tokio::time::timeout(ENGINE_PATIENCE, read).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    async fn spans(&self, reader: &TrailReader, pending: &Pending, row: Row) -> Result<Vec<Span>, Stop> {
        let of_lease = EventQuery { lease: Some(pending.lease), limit: ENTRIES, ..EventQuery::default() };
        let entries = reader.find(&of_lease).await?;
        let parent = self.parent(reader, &entries, row.replaces).await?;
        let wanted = match parent {
            Some(parent) => parent.sampled,
            None => self.wants_unparented(&pending.end),
        };
        if !wanted {
            return Ok(Vec::new());
        }
        let resource = entries.iter().rev().find_map(|event| event.resource);
        let of_resource = match (resource, entries.first()) {
            (Some(resource), Some(first)) => {
                let query = EventQuery {
                    resource: Some(resource),
                    itself: true,
                    after: Revision(first.revision.saturating_sub(1)),
                    to: Some(Revision(pending.end.revision)),
                    newest_first: true,
                    limit: ENTRIES,
                    ..EventQuery::default()
                };
                let mut found = reader.find(&query).await?;
                found.reverse();
                found
            }
            _ => Vec::new(),
        };
        let facts = Facts {
            machine: row.machine,
            holder: row.holder,
            replaces: row.replaces.map(|id| id.to_string()),
            clean_at: self.around.cleaned.of(pending.lease).map(|at| at.0),
        };
        Ok(story::spans(&pending.lease.to_string(), &entries, &of_resource, &facts, parent))
    }

    /// The trace of a lease: of its own request, or of the request of the broken lease that it replaces.
    async fn parent(
        &self,
        reader: &TrailReader,
        entries: &[StoredEvent],
        mut replaces: Option<LeaseId>,
    ) -> Result<Option<TraceParent>, Stop> {
        if let Some(parent) = entries.first().and_then(parent_in) {
            return Ok(Some(parent));
        }
        for _ in 0..CHAIN {
            let Some(lease) = replaces else { return Ok(None) };
            let query = EventQuery { lease: Some(lease), limit: 1, ..EventQuery::default() };
            if let Some(parent) = reader.find(&query).await?.first().and_then(parent_in) {
                return Ok(Some(parent));
            }
            replaces = self.rows(vec![(lease, None)]).await.remove(&lease).and_then(|row| row.replaces);
        }
        Ok(None)
    }

    /// Exports spans, however long it takes, until they are too old. The trail waits meanwhile.
    async fn export(&mut self, spans: Vec<Span>, oldest: i64) -> Result<(), Stop> {
        if spans.is_empty() {
            return Ok(());
        }
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        let mut refusals = 0;
        loop {
            let exported = tokio::select! {
                () = self.stop.cancelled() => return Err(Stop::Asked),
                exported = self.exporter.export(&spans) => exported,
            };
            match exported {
                Ok(()) => {
                    self.around.told.exported(spans.len());
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("spans are exported again");
                    }
                    return Ok(());
                }
                Err(ExportError::Later(why)) => {
                    self.around.told.export_failed();
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(
                            why,
                            "the collector takes no spans; trying again, and the trail keeps its entries"
                        );
                    }
                }
                Err(ExportError::Refused(why)) => {
                    self.around.told.export_failed();
                    refusals += 1;
                    if refusals >= REFUSALS {
                        tracing::error!(why, spans = spans.len(), "the collector refuses spans, which are given up");
                        self.around.told.spans_skipped(spans.len());
                        return Ok(());
                    }
                }
            }
            if self.around.handle.leadership().role() != Role::Leading {
                return Err(Stop::Asked);
            }
            if Duration::from_millis(u64::try_from(wall_ms() - oldest).unwrap_or(0)) > GIVE_UP {
                self.around.told.spans_skipped(spans.len());
                return Ok(());
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stop::Asked),
                () = tokio::time::sleep(backoff.wait(None)) => {}
            }
        }
    }
}

/// The place in a trace that a caller gave with its request.
fn parent_in(event: &StoredEvent) -> Option<TraceParent> {
    TraceParent::parse(event.caller.as_ref()?.trace.as_deref()?)
}

fn row(core: &Core, (id, on): Subject) -> Option<Row> {
    let lease = core.lease(id)?;
    let cleaning = matches!(&lease.state, LeaseState::Ended { cleanup: Some(_), .. });
    Some(Row {
        machine: on.and_then(|on| core.resource(on)).and_then(|row| row.item.as_deref()).map(String::from),
        holder: Some(lease.spec.holder.to_string()).filter(|holder| !holder.is_empty()),
        replaces: lease.spec.replaces,
        cleaning,
    })
}
