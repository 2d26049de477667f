//! The connection that writes, and the fate of a commit whose connection breaks.
//!
//! A commit whose answer was lost may have been stored, may still be under way, or may never have left. The next step is therefore a
//! write over a new connection that raises `meta.settled` (`SETTLE`). It waits for a commit under way. A commit that comes later
//! carries an old count and is refused. Afterwards `meta.batch`, the mark of the last stored commit, shows for good whether the
//! commit was stored.

use super::commit_sql::Parts;
use super::connect::{Database, Purpose, part};
use super::error::{PgError, refused, sorted};
use super::rows::{Rows, escaped, number};
use super::sql;
use crate::backoff::Backoff;
use crate::store::row::{
    EVENT, LEASE, MACHINE, POOL, RESOURCE, SESSION, encode_event, encode_lease, encode_machine, encode_pool,
    encode_resource, encode_session,
};
use crate::store::{CommitError, Epoch, StoreError, TrailPlace};
use sqlx::Arguments;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use wharfinger_core::{Batch, Event, Revision, Timestamp};

/// A batch in the columns of the tables.
pub(super) struct Plan {
    base: Revision,
    numbers: [i64; 4],
    /// Identifies the commit.
    mark: i64,
    tables: [Rows; 6],
    forgotten: [Vec<String>; 3],
}

impl Plan {
    pub(super) fn new(batch: &Batch, mark: i64) -> Plan {
        let mut leases = Rows::new(LEASE, batch.leases.len());
        for lease in &batch.leases {
            leases.add(|row| encode_lease(lease, row));
        }
        let mut resources = Rows::new(RESOURCE, batch.resources.len());
        for resource in &batch.resources {
            resources.add(|row| encode_resource(resource, row));
        }
        let mut pools = Rows::new(POOL, batch.pools.len());
        for pool in &batch.pools {
            pools.add(|row| encode_pool(pool, row));
        }
        let mut machines = Rows::new(MACHINE, batch.machines.len());
        for machine in &batch.machines {
            machines.add(|row| encode_machine(machine, row));
        }
        let mut sessions = Rows::new(SESSION, batch.sessions.len());
        for session in &batch.sessions {
            sessions.add(|row| encode_session(session, row));
        }
        let mut sorted: Vec<&Event> = batch.events.iter().collect();
        sorted.sort_by_key(|event| event.revision);
        let mut events = Rows::new(EVENT, sorted.len());
        let (mut revision, mut ordinal) = (None, 0);
        for event in sorted {
            ordinal = if Some(event.revision) == revision { ordinal + 1 } else { 0 };
            revision = Some(event.revision);
            events.add(|row| encode_event(event, ordinal, row));
        }
        Plan {
            base: batch.base,
            numbers: [
                batch.revision.0.cast_signed(),
                batch.floor.0.cast_signed(),
                batch.now.0,
                batch.base.0.cast_signed(),
            ],
            mark,
            tables: [leases, resources, pools, machines, sessions, events],
            forgotten: [
                batch.forgotten_leases.iter().map(ToString::to_string).collect(),
                batch.forgotten_resources.iter().map(ToString::to_string).collect(),
                batch.ended_sessions.iter().map(ToString::to_string).collect(),
            ],
        }
    }

    /// The parts that its statement has.
    fn parts(&self) -> Parts {
        Parts::new(
            self.tables.each_ref().map(|rows| !rows.is_empty()),
            self.forgotten.iter().any(|ids| !ids.is_empty()),
        )
    }

    fn arguments(&self, epoch: Epoch, settled: i64) -> Result<PgArguments, StoreError> {
        let mut arguments = PgArguments::default();
        let wrong = |error: sqlx::error::BoxDynError| {
            StoreError::Corrupt(format!("a value cannot be stored: {error}; report it"))
        };
        for number in self.numbers.into_iter().chain([epoch.0.cast_signed(), settled, self.mark]) {
            arguments.add(number).map_err(wrong)?;
        }
        let parts = self.parts();
        for (_, table) in self.tables.iter().enumerate().filter(|(number, _)| parts.has(*number)) {
            table.bind(&mut arguments)?;
        }
        for ids in self.forgotten.iter().filter(|_| parts.forgets()) {
            arguments.add(ids).map_err(wrong)?;
        }
        Ok(arguments)
    }
}

/// The row of `meta`.
struct Standing {
    revision: Revision,
    epoch: Epoch,
    settled: i64,
    mark: i64,
}

impl Standing {
    fn read(row: &PgRow) -> Result<Self, PgError> {
        Ok(Standing {
            revision: Revision(number(row, 0)?.cast_unsigned()),
            epoch: Epoch(number(row, 1)?.cast_unsigned()),
            settled: number(row, 2)?,
            mark: number(row, 3)?,
        })
    }
}

/// The reason why an attempt to commit ended.
enum Stop {
    /// A final error.
    Error(CommitError),
    /// The connection broke; another one may finish the commit.
    Lost(StoreError),
}

/// The connection that writes. A failure replaces it.
pub(super) struct Writer {
    database: Arc<Database>,
    conn: Option<PgConnection>,
    /// The epoch with which this server writes, and the count of settled doubts that its commits carry.
    ours: Option<(Epoch, i64)>,
    /// The mark of a commit in doubt.
    doubt: Option<i64>,
}

impl Writer {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Writer { database, conn: None, ours: None, doubt: None }
    }

    /// Runs a statement that returns at most one row. The connection is kept only after an answer.
    async fn ask(&mut self, text: &'static str, number: Option<i64>) -> Result<Option<PgRow>, PgError> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.database.connect(Purpose::Write).await?,
        };
        let mut query = sqlx::query(text);
        if let Some(number) = number {
            query = query.bind(number);
        }
        let row = self.database.within(Purpose::Write, query.fetch_optional(&mut conn)).await?;
        self.conn = Some(conn);
        Ok(row)
    }

    /// Raises the epoch.
    pub(super) async fn acquire(&mut self) -> Result<Epoch, PgError> {
        let row = match self.ask(sql::ACQUIRE, None).await {
            // The connection may have died while it was idle. It does no harm to raise the epoch twice.
            Err(failure) if failure.lost() => self.ask(sql::ACQUIRE, None).await?,
            other => other?,
        };
        let row = row.ok_or_else(|| StoreError::Corrupt("the table meta is empty: restore a backup".into()))?;
        let standing = Standing::read(&row)?;
        self.ours = Some((standing.epoch, standing.settled));
        self.doubt = None;
        Ok(standing.epoch)
    }

    /// Sets the salt of new ids.
    pub(super) async fn set_deployment_salt(&mut self, salt: u16) -> Result<(), PgError> {
        self.ask(sql::SET_SALT, Some(i64::from(salt))).await.map(drop)
    }

    /// Removes old entries of the audit trail and returns their number.
    pub(super) async fn trim(&mut self, before: Timestamp, most: usize) -> Result<usize, PgError> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.database.connect(Purpose::Write).await?,
        };
        let query = sqlx::query(sql::TRIM_EVENTS).bind(i64::try_from(most).unwrap_or(i64::MAX)).bind(before.0);
        let row = self.database.within(Purpose::Write, query.fetch_one(&mut conn)).await?;
        self.conn = Some(conn);
        Ok(usize::try_from(number(&row, 0)?).unwrap_or(0))
    }

    /// Stores the place of a reader of the trail.
    pub(super) async fn put_reader(&mut self, place: &TrailPlace) -> Result<(), PgError> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.database.connect(Purpose::Write).await?,
        };
        let query = sqlx::query(sql::PUT_READER)
            .bind(&place.name)
            .bind(place.revision.cast_signed())
            .bind(place.ordinal.cast_signed())
            .bind(place.at_unix_ms)
            .bind(escaped(&place.notes).into_owned());
        self.database.within(Purpose::Write, query.execute(&mut conn)).await?;
        self.conn = Some(conn);
        Ok(())
    }

    /// Removes the place of a reader of the trail.
    pub(super) async fn forget_reader(&mut self, name: &str) -> Result<(), PgError> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.database.connect(Purpose::Write).await?,
        };
        let query = sqlx::query(sql::FORGET_READER).bind(name);
        self.database.within(Purpose::Write, query.execute(&mut conn)).await?;
        self.conn = Some(conn);
        Ok(())
    }

    /// Records that this server won an election.
    pub(super) fn lead(&mut self, epoch: Epoch, settled: i64) {
        self.ours = Some((epoch, settled));
        self.doubt = None;
    }

    /// Ends a doubt, so that the stored state is final.
    pub(super) async fn settle(&mut self) -> Result<(), PgError> {
        let (Some(_), Some((epoch, _))) = (self.doubt, self.ours) else { return Ok(()) };
        let until = Instant::now() + self.database.patience();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let wait = backoff.wait(None);
            match self.end_doubt(epoch).await {
                Err(failure) if failure.lost() && Instant::now() + wait < until => {}
                Err(failure) => return Err(failure),
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {
                    let current = self.standing().await?.epoch;
                    return Err(PgError::Store(StoreError::Deposed { current }));
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn standing(&mut self) -> Result<Standing, PgError> {
        let row = self.ask(sql::STANDING, None).await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("the table meta is empty: restore a backup".into()))?;
        Standing::read(&row)
    }

    /// Ends a doubt: a commit that was sent before and is not stored no longer counts. `None` if another server leads.
    async fn end_doubt(&mut self, epoch: Epoch) -> Result<Option<Standing>, PgError> {
        let Some(row) = self.ask(sql::SETTLE, Some(epoch.0.cast_signed())).await? else { return Ok(None) };
        let standing = Standing::read(&row)?;
        self.ours = Some((epoch, standing.settled));
        self.doubt = None;
        Ok(Some(standing))
    }

    /// Commits a plan. If the connection breaks, it makes another one, ends the doubt, and sends the plan again if it was not stored.
    /// It gives up after the time limit of a statement.
    pub(super) async fn commit(&mut self, plan: &Plan, epoch: Epoch) -> Result<(), CommitError> {
        let until = Instant::now() + self.database.patience();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let error = match self.attempt(plan, epoch).await {
                Ok(()) => return Ok(()),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Lost(error)) => error,
            };
            let wait = backoff.wait(None);
            if Instant::now() + wait >= until {
                // Another doubt belongs to an earlier commit, which was never acknowledged.
                let ours = self.doubt == Some(plan.mark);
                return Err(if ours { CommitError::InDoubt(error) } else { CommitError::NotCommitted(error) });
            }
            tracing::warn!(%error, in_doubt = self.doubt.is_some(), "the connection broke; finishing the commit over another one");
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&mut self, plan: &Plan, epoch: Epoch) -> Result<(), Stop> {
        let settled = match (self.doubt, self.ours) {
            (None, Some((as_whom, settled))) if as_whom == epoch => settled,
            (doubt, _) => match self.end_doubt(epoch).await.map_err(|failure| self.stop(&failure))? {
                Some(standing) if doubt == Some(plan.mark) && standing.mark == plan.mark => return Ok(()),
                Some(standing) => standing.settled,
                None => return Err(self.deposed().await),
            },
        };
        let arguments =
            plan.arguments(epoch, settled).map_err(|error| Stop::Error(CommitError::NotCommitted(error)))?;
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.database.connect(Purpose::Write).await.map_err(|failure| self.stop(&failure))?,
        };
        // In doubt from here on: a call that is dropped leaves the doubt behind.
        self.doubt = Some(plan.mark);
        let sent = sqlx::query_with(plan.parts().statement(), arguments).fetch_one(&mut conn);
        match self.database.within(Purpose::Write, sent).await {
            Ok(row) => {
                self.doubt = None;
                self.conn = Some(conn);
                match number(&row, 0) {
                    Ok(1) => Ok(()),
                    Ok(_) => Err(self.explain(plan, epoch).await),
                    Err(failure) => Err(Stop::Error(CommitError::InDoubt(failure.sorted(&self.database.place)))),
                }
            }
            Err(PgError::Sql(error)) if refused(&error) => {
                self.doubt = None;
                Err(Stop::Error(CommitError::NotCommitted(sorted(&self.database.place, &error))))
            }
            Err(failure) => Err(Stop::Lost(failure.sorted(&self.database.place))),
        }
    }

    /// The end of an attempt that has sent nothing.
    fn stop(&self, failure: &PgError) -> Stop {
        let error = failure.sorted(&self.database.place);
        // A database that starts refuses connections with an error. Another attempt is then worth while.
        if failure.lost() || matches!(error, StoreError::Unavailable(_)) {
            Stop::Lost(error)
        } else {
            Stop::Error(CommitError::NotCommitted(error))
        }
    }

    async fn deposed(&mut self) -> Stop {
        match self.standing().await {
            Ok(standing) => {
                self.doubt = None;
                Stop::Error(CommitError::Deposed { current: standing.epoch })
            }
            Err(failure) => self.stop(&failure),
        }
    }

    /// The reason why a commit was refused. Nothing of it is stored.
    async fn explain(&mut self, plan: &Plan, epoch: Epoch) -> Stop {
        let standing = match self.standing().await {
            Ok(standing) => standing,
            Err(failure) => return Stop::Error(CommitError::NotCommitted(failure.sorted(&self.database.place))),
        };
        Stop::Error(if standing.epoch != epoch {
            tracing::debug!(revision = %standing.revision, "a commit with an older epoch was refused");
            CommitError::Deposed { current: standing.epoch }
        } else {
            CommitError::NotCommitted(StoreError::Corrupt(format!(
                "the database {} is at revision {}, but the change builds on {}: something else writes to it; end that, \
                 and restart",
                self.database.place, standing.revision, plan.base
            )))
        })
    }

    #[cfg(test)]
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Connects by another address from now on.
    #[cfg(test)]
    pub(super) fn move_to(&mut self, database: Arc<Database>) {
        self.database = database;
        self.conn = None;
    }

    /// The process id of the server's session.
    #[cfg(test)]
    pub(super) async fn pid(&mut self) -> i32 {
        let row = self.ask("SELECT pg_backend_pid()", None).await.unwrap().unwrap();
        sqlx::Row::get(&row, 0)
    }

    pub(super) async fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            part(conn).await;
        }
    }
}

/// The first and the longest wait between two attempts.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// A text in its stored form, for a comparison.
pub(super) fn as_stored(text: &str) -> String {
    escaped(text).into_owned()
}
