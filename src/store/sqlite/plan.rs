//! The plan of a commit: the statements of a batch, with their values.

use super::sql;
use crate::store::row::{
    Sink, encode_event, encode_lease, encode_machine, encode_pool, encode_resource, encode_session,
};
use crate::store::{Epoch, FORGOTTEN_FOR_MS, StoreError, forgets, numbered};
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;
use std::borrow::Cow;
use std::sync::Arc;
use wharfinger_core::{Batch, Event, Revision};

/// The values of one statement.
#[derive(Default)]
struct Values {
    arguments: SqliteArguments,
    failed: Option<String>,
}

impl Values {
    fn add<'v, T: sqlx::Encode<'v, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self, value: T) {
        if let Err(error) = self.arguments.add(value) {
            self.failed = Some(error.to_string());
        }
    }
}

impl Sink for Values {
    fn int(&mut self, value: Option<i64>) {
        self.add(value);
    }
    fn text(&mut self, value: Option<&Arc<str>>) {
        self.add(value.cloned());
    }
    fn string(&mut self, value: Option<String>) {
        self.add(value);
    }
}

/// Maximum number of rows of one kind in one statement. A batch below this limit is small: all its statements go to the connection's
/// thread in one text, since a hop costs as much as four rows.
const ROWS: usize = 128;

/// The statements of a batch. It owns all values, so a task can run it after its caller was dropped.
pub(super) struct Plan {
    pub(super) base: Revision,
    /// The text that opens the transaction and advances the revision. For a small batch it also has all rows.
    pub(super) opening: (Cow<'static, str>, SqliteArguments),
    pub(super) statements: Vec<(Cow<'static, str>, SqliteArguments)>,
    pub(super) rows: usize,
}

impl Plan {
    pub(super) fn new(batch: &Batch, epoch: Epoch) -> Result<Plan, StoreError> {
        let mut opening = Values::default();
        for number in [batch.revision.0, batch.floor.0] {
            opening.int(Some(number.cast_signed()));
        }
        opening.int(Some(batch.now.0));
        for number in [batch.base.0, epoch.0] {
            opening.int(Some(number.cast_signed()));
        }
        let mut plan = Plan {
            base: batch.base,
            opening: (Cow::Borrowed(sql::ADVANCE), SqliteArguments::default()),
            statements: Vec::new(),
            rows: batch.leases.len() + batch.resources.len() + batch.events.len(),
        };
        numbered(batch)?;
        let events = Events::of(batch);
        let put = [batch.leases.len(), batch.resources.len(), batch.events.len()];
        if put.iter().all(|rows| *rows <= ROWS) && events.late.is_empty() && rare(batch) == 0 {
            let mut text = String::from(sql::ADVANCE);
            put_all(&sql::LEASE_ROWS, &batch.leases, &mut text, &mut opening, |lease, values| {
                encode_lease(lease, values)
            });
            put_all(&sql::RESOURCE_ROWS, &batch.resources, &mut text, &mut opening, |resource, values| {
                encode_resource(resource, values);
            });
            put_all(&sql::EVENT_ROWS, &events.new, &mut text, &mut opening, events.numbers());
            plan.opening = (Cow::Owned(text), checked(opening)?);
            return Ok(plan);
        }
        plan.opening.1 = checked(opening)?;
        plan.put(&sql::LEASE_ROWS, &batch.leases, |lease, values| encode_lease(lease, values))?;
        plan.put(&sql::RESOURCE_ROWS, &batch.resources, |resource, values| encode_resource(resource, values))?;
        for pool in &batch.pools {
            plan.one(sql::PUT_POOL, |values| encode_pool(pool, values))?;
        }
        for machine in &batch.machines {
            plan.one(sql::PUT_MACHINE, |values| encode_machine(machine, values))?;
        }
        for session in &batch.sessions {
            plan.one(sql::PUT_SESSION, |values| encode_session(session, values))?;
        }
        plan.forget(batch)?;
        for event in &events.late {
            plan.one(sql::PUT_LATE_EVENT, |values| encode_event(event, 0, values))?;
        }
        plan.put(&sql::EVENT_ROWS, &events.new, events.numbers())?;
        Ok(plan)
    }

    fn forget(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if !forgets(batch) {
            return Ok(());
        }
        let leases = id_list(batch.forgotten_leases.iter().map(ToString::to_string));
        let resources = id_list(batch.forgotten_resources.iter().map(ToString::to_string));
        self.one(sql::FORGET_LEASES, |values| values.string(Some(leases.clone())))?;
        let sessions = id_list(batch.ended_sessions.iter().map(ToString::to_string));
        self.one(sql::FORGET_RESOURCES, |values| values.string(Some(resources.clone())))?;
        if !batch.ended_sessions.is_empty() {
            self.one(sql::FORGET_SESSIONS, |values| values.string(Some(sessions.clone())))?;
        }
        let old = Some(batch.now.0 - FORGOTTEN_FOR_MS);
        self.one(sql::RAISE_FEED_FLOOR, |values| values.int(old))?;
        self.one(sql::PRUNE_FORGOTTEN, |values| values.int(old))?;
        self.one(sql::NOTE_FORGOTTEN, |values| {
            values.int(Some(batch.revision.0.cast_signed()));
            values.int(Some(batch.now.0));
            values.string(Some(leases));
            values.string(Some(resources));
            values.string(Some(sessions));
        })
    }

    fn one(&mut self, text: &'static str, fill: impl FnOnce(&mut Values)) -> Result<(), StoreError> {
        let mut values = Values::default();
        fill(&mut values);
        self.statements.push((Cow::Borrowed(text), checked(values)?));
        Ok(())
    }

    fn put<T>(&mut self, put: &sql::Put, rows: &[T], mut fill: impl FnMut(&T, &mut Values)) -> Result<(), StoreError> {
        for some in rows.chunks(ROWS) {
            let mut values = Values::default();
            let text = put_rows(put, some, &mut values, &mut fill);
            self.statements.push((Cow::Owned(text), checked(values)?));
        }
        Ok(())
    }
}

/// The number of changes of the rare kinds.
fn rare(batch: &Batch) -> usize {
    let forgotten = batch.forgotten_leases.len() + batch.forgotten_resources.len() + batch.ended_sessions.len();
    batch.pools.len() + batch.machines.len() + batch.sessions.len() + forgotten
}

/// Returns the statement for these rows and adds their values.
fn put_rows<T>(put: &sql::Put, rows: &[T], values: &mut Values, fill: &mut impl FnMut(&T, &mut Values)) -> String {
    let room = rows.len().next_power_of_two();
    rows.iter().for_each(|row| fill(row, values));
    for _ in 0..(room - rows.len()) * put.columns {
        values.int(None);
    }
    put.text(room)
}

/// As [`put_rows`], behind other statements. Adds nothing without rows.
fn put_all<T>(
    put: &sql::Put,
    rows: &[T],
    text: &mut String,
    values: &mut Values,
    mut fill: impl FnMut(&T, &mut Values),
) {
    if !rows.is_empty() {
        text.push_str("; ");
        text.push_str(&put_rows(put, rows, values, &mut fill));
    }
}

/// The entries of a batch, in their order.
struct Events<'b> {
    base: Revision,
    /// Entries of a revision of an earlier batch. A batch that only forgets has the revision of the batch before it, which may have
    /// entries already.
    late: Vec<&'b Event>,
    new: Vec<&'b Event>,
}

impl<'b> Events<'b> {
    fn of(batch: &'b Batch) -> Self {
        let mut late: Vec<&Event> = batch.events.iter().collect();
        late.sort_by_key(|event| event.revision);
        let new = late.split_off(late.partition_point(|event| event.revision <= batch.base));
        Self { base: batch.base, late, new }
    }

    /// Writes each entry with its position within its revision.
    fn numbers(&self) -> impl FnMut(&&'b Event, &mut Values) + use<'b> {
        let (mut revision, mut ordinal) = (self.base, 0);
        move |event, values| {
            ordinal = if event.revision == revision { ordinal + 1 } else { 0 };
            revision = event.revision;
            encode_event(event, ordinal, values);
        }
    }
}

fn checked(values: Values) -> Result<SqliteArguments, StoreError> {
    match values.failed {
        None => Ok(values.arguments),
        Some(what) => Err(StoreError::Corrupt(format!("a value cannot be stored: {what}; report it"))),
    }
}

fn id_list(ids: impl Iterator<Item = String>) -> String {
    // Ids need no escaping.
    let mut text = String::from("[");
    for id in ids {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        text.push_str(&id);
        text.push('"');
    }
    text.push(']');
    text
}
