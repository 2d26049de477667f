//! The one connection that writes, and what becomes of a commit when it breaks.
//!
//! A commit whose answer was lost may have been stored, may be on its way still, or not have left. Guessing would be wrong
//! in one of the cases, so the next thing that is done is a write over a new connection that raises `meta.settled`
//! (`SETTLE`). It waits for a commit under way, and one that comes later carries an old count and is refused. After it,
//! `meta.batch` says for good whether the commit was stored: it is the mark of the last one that was.

use super::connect::{Purpose, Site, part};
use super::error::{Trouble, refused, sorted};
use super::rows::{Rows, escaped, number};
use super::sql;
use crate::store::row::{EVENT, LEASE, POOL, RESOURCE, encode_event, encode_lease, encode_pool, encode_resource};
use crate::store::{CommitError, Epoch, StoreError};
use sqlx::Arguments;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharfinger_core::{Batch, Event, Revision, Timestamp};

/// A batch in the columns of the tables.
pub(super) struct Plan {
    base: Revision,
    numbers: [i64; 4],
    /// By which it is known again.
    mark: i64,
    tables: [Rows; 4],
    forgotten: [Vec<String>; 2],
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
            tables: [leases, resources, pools, events],
            forgotten: [
                batch.forgotten_leases.iter().map(ToString::to_string).collect(),
                batch.forgotten_resources.iter().map(ToString::to_string).collect(),
            ],
        }
    }

    fn arguments(&self, epoch: Epoch, settled: i64) -> Result<PgArguments, StoreError> {
        let mut arguments = PgArguments::default();
        let wrong = |error: sqlx::error::BoxDynError| {
            StoreError::Corrupt(format!("a value can't be stored: {error}; report it"))
        };
        for number in self.numbers.into_iter().chain([epoch.0.cast_signed(), settled, self.mark]) {
            arguments.add(number).map_err(wrong)?;
        }
        for table in &self.tables {
            table.bind(&mut arguments)?;
        }
        for ids in &self.forgotten {
            arguments.add(ids).map_err(wrong)?;
        }
        Ok(arguments)
    }
}

/// Where the database stands.
struct Standing {
    revision: Revision,
    epoch: Epoch,
    settled: i64,
    mark: i64,
}

impl Standing {
    fn read(row: &PgRow) -> Result<Self, Trouble> {
        Ok(Standing {
            revision: Revision(number(row, 0)?.cast_unsigned()),
            epoch: Epoch(number(row, 1)?.cast_unsigned()),
            settled: number(row, 2)?,
            mark: number(row, 3)?,
        })
    }
}

/// Why an attempt to commit ended.
enum Stop {
    /// For good.
    Error(CommitError),
    /// The connection is gone; another may bring it to an end.
    Lost(StoreError),
}

/// The connection that writes, made anew after a failure.
pub(super) struct Writer {
    site: Arc<Site>,
    conn: Option<PgConnection>,
    /// As whom we write, and the count that our commits carry.
    ours: Option<(Epoch, i64)>,
    /// The mark of a commit of which it is not known whether it was stored.
    doubt: Option<i64>,
}

impl Writer {
    pub(super) fn new(site: Arc<Site>) -> Self {
        Writer { site, conn: None, ours: None, doubt: None }
    }

    /// Asks the database for one row at most. The connection is kept only if it answered.
    async fn ask(&mut self, text: &'static str, number: Option<i64>) -> Result<Option<PgRow>, Trouble> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.site.connect(Purpose::Write).await?,
        };
        let mut query = sqlx::query(text);
        if let Some(number) = number {
            query = query.bind(number);
        }
        let row = self.site.within(Purpose::Write, query.fetch_optional(&mut conn)).await?;
        self.conn = Some(conn);
        Ok(row)
    }

    /// Raises the epoch.
    pub(super) async fn acquire(&mut self) -> Result<Epoch, Trouble> {
        let row = match self.ask(sql::ACQUIRE, None).await {
            // The connection may have died while it was idle. Raised twice is as good as once.
            Err(trouble) if trouble.lost() => self.ask(sql::ACQUIRE, None).await?,
            other => other?,
        };
        let row = row.ok_or_else(|| StoreError::Corrupt("the table meta is empty: restore a backup".into()))?;
        let standing = Standing::read(&row)?;
        self.ours = Some((standing.epoch, standing.settled));
        self.doubt = None;
        Ok(standing.epoch)
    }

    /// Takes the ids of another deployment over.
    pub(super) async fn brand(&mut self, salt: u16) -> Result<(), Trouble> {
        self.ask(sql::BRAND, Some(i64::from(salt))).await.map(drop)
    }

    /// Removes old entries of the audit trail, says how many.
    pub(super) async fn trim(&mut self, before: Timestamp, most: usize) -> Result<usize, Trouble> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.site.connect(Purpose::Write).await?,
        };
        let query = sqlx::query(sql::TRIM_EVENTS).bind(i64::try_from(most).unwrap_or(i64::MAX)).bind(before.0);
        let row = self.site.within(Purpose::Write, query.fetch_one(&mut conn)).await?;
        self.conn = Some(conn);
        Ok(usize::try_from(number(&row, 0)?).unwrap_or(0))
    }

    /// We lead, as an election says.
    pub(super) fn lead(&mut self, epoch: Epoch, settled: i64) {
        self.ours = Some((epoch, settled));
        self.doubt = None;
    }

    /// Makes sure that what is stored now stays what is stored.
    pub(super) async fn settle(&mut self) -> Result<(), Trouble> {
        let (Some(_), Some((epoch, _))) = (self.doubt, self.ours) else { return Ok(()) };
        let until = Instant::now() + self.site.patience();
        let mut wait = FIRST_WAIT;
        loop {
            match self.end_doubt(epoch).await {
                Err(trouble) if trouble.lost() && Instant::now() + wait < until => {}
                Err(trouble) => return Err(trouble),
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {
                    let current = self.standing().await?.epoch;
                    return Err(Trouble::Store(StoreError::Deposed { current }));
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn standing(&mut self) -> Result<Standing, Trouble> {
        let row = self.ask(sql::STANDING, None).await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("the table meta is empty: restore a backup".into()))?;
        Standing::read(&row)
    }

    /// What was sent before no longer counts, unless it is stored. `None` if another leads.
    async fn end_doubt(&mut self, epoch: Epoch) -> Result<Option<Standing>, Trouble> {
        let Some(row) = self.ask(sql::SETTLE, Some(epoch.0.cast_signed())).await? else { return Ok(None) };
        let standing = Standing::read(&row)?;
        self.ours = Some((epoch, standing.settled));
        self.doubt = None;
        Ok(Some(standing))
    }

    /// Carries a plan out. If the connection breaks, another is made, the doubt ended, and what was not stored sent again,
    /// for as long as a statement may take.
    pub(super) async fn commit(&mut self, plan: &Plan, epoch: Epoch) -> Result<(), CommitError> {
        let until = Instant::now() + self.site.patience();
        let mut wait = FIRST_WAIT;
        loop {
            let error = match self.attempt(plan, epoch).await {
                Ok(()) => return Ok(()),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Lost(error)) => error,
            };
            if Instant::now() + wait >= until {
                // A doubt that is not ours is of a commit before, which was never acknowledged.
                let ours = self.doubt == Some(plan.mark);
                return Err(if ours { CommitError::InDoubt(error) } else { CommitError::NotCommitted(error) });
            }
            tracing::warn!(%error, in_doubt = self.doubt.is_some(), "the connection broke; looking after the commit");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn attempt(&mut self, plan: &Plan, epoch: Epoch) -> Result<(), Stop> {
        let settled = match (self.doubt, self.ours) {
            (None, Some((as_whom, settled))) if as_whom == epoch => settled,
            (doubt, _) => match self.end_doubt(epoch).await.map_err(|trouble| self.stop(&trouble))? {
                Some(standing) if doubt == Some(plan.mark) && standing.mark == plan.mark => return Ok(()),
                Some(standing) => standing.settled,
                None => return Err(self.deposed().await),
            },
        };
        let arguments =
            plan.arguments(epoch, settled).map_err(|error| Stop::Error(CommitError::NotCommitted(error)))?;
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.site.connect(Purpose::Write).await.map_err(|trouble| self.stop(&trouble))?,
        };
        // From here on, whatever happens: a call that is dropped leaves the doubt behind.
        self.doubt = Some(plan.mark);
        let sent = sqlx::query_with(sql::commit(), arguments).fetch_one(&mut conn);
        match self.site.within(Purpose::Write, sent).await {
            Ok(row) => {
                self.doubt = None;
                self.conn = Some(conn);
                match number(&row, 0) {
                    Ok(1) => Ok(()),
                    Ok(_) => Err(self.explain(plan, epoch).await),
                    Err(trouble) => Err(Stop::Error(CommitError::InDoubt(trouble.sorted(&self.site.place)))),
                }
            }
            Err(Trouble::Sql(error)) if refused(&error) => {
                self.doubt = None;
                Err(Stop::Error(CommitError::NotCommitted(sorted(&self.site.place, &error))))
            }
            Err(trouble) => Err(Stop::Lost(trouble.sorted(&self.site.place))),
        }
    }

    /// Before anything was sent.
    fn stop(&self, trouble: &Trouble) -> Stop {
        let error = trouble.sorted(&self.site.place);
        // While the database starts, it says so as an error to the connection; then it is worth another attempt.
        if trouble.lost() || matches!(error, StoreError::Unavailable(_)) {
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
            Err(trouble) => self.stop(&trouble),
        }
    }

    /// Why a commit was not taken: nothing of it is stored.
    async fn explain(&mut self, plan: &Plan, epoch: Epoch) -> Stop {
        let standing = match self.standing().await {
            Ok(standing) => standing,
            Err(trouble) => return Stop::Error(CommitError::NotCommitted(trouble.sorted(&self.site.place))),
        };
        Stop::Error(if standing.epoch != epoch {
            tracing::debug!(revision = %standing.revision, "a commit with an older epoch was refused");
            CommitError::Deposed { current: standing.epoch }
        } else {
            CommitError::NotCommitted(StoreError::Corrupt(format!(
                "the database {} is at revision {}, but the change builds on {}: something else writes to it; end that, \
                 and restart",
                self.site.place, standing.revision, plan.base
            )))
        })
    }

    #[cfg(test)]
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// From now on by another way.
    #[cfg(test)]
    pub(super) fn move_to(&mut self, site: Arc<Site>) {
        self.site = site;
        self.conn = None;
    }

    /// The process at the other end.
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

/// Between attempts.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// A text as it is stored, to be looked for.
pub(super) fn as_stored(text: &str) -> String {
    escaped(text).into_owned()
}
