//! The row of the leader: a server takes it when it is free, renews it, and gives it back.
//!
//! The row selects the leader. The epoch in each commit keeps other servers from writing; the statement that takes the row raises
//! it. See docs/adr/0015-leadership.md.

use super::connect::{Database, Purpose, part};
use super::error::PgError;
use super::rows::number;
use super::{PostgresStore, sql};
use crate::clock::{Moment, TOLERANCE, wall_ms};
use crate::store::election::{Candidate, Election, Lead, Leader};
use crate::store::{Epoch, Renewal, StoreError, Term};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use wharfinger_core::Millis;

/// The connection for elections, so that none of them waits for a commit.
#[derive(Default)]
pub(super) struct ElectionConn {
    conn: Mutex<Option<PgConnection>>,
}

impl ElectionConn {
    /// Runs a statement that returns at most one row, within this time. The connection is kept only after an answer.
    async fn ask(
        &self,
        database: &Database,
        limit: Duration,
        query: sqlx::query::Query<'_, sqlx::Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, PgError> {
        let asked = async {
            let mut place = self.conn.lock().await;
            let mut conn = match place.take() {
                Some(conn) => conn,
                None => database.connect(Purpose::Read).await?,
            };
            let row = query.fetch_optional(&mut conn).await?;
            *place = Some(conn);
            Ok(row)
        };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(PgError::Store(StoreError::Unavailable(format!(
                "the database {} does not answer within {limit:?}",
                database.place
            ))))
        })
    }

    pub(super) async fn close(&self) {
        if let Some(conn) = self.conn.lock().await.take() {
            part(conn).await;
        }
    }
}

/// A time in milliseconds.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl PostgresStore {
    /// Takes the lead if no other server has it, and renews it until [`PostgresStore::resign`] or until it is lost.
    ///
    /// A server whose wall clock differs from the database's by more than [`TOLERANCE`] waits one time to live longer, so that
    /// another server may lead. If none does, it leads: a broker with a wrong clock is better than none.
    ///
    /// # Errors
    /// The database does not answer: try again.
    pub async fn campaign(&self, who: &Candidate) -> Result<Election, StoreError> {
        let inner = &*self.inner;
        let asked = Asked::now();
        let limit = Term::attempt_limit(who.ttl);
        let found = inner.election.ask(&inner.database, limit, sqlx::query(sql::LEADER)).await;
        let Some(row) = found.map_err(|failure| self.sorted(&failure))? else { return Ok(Election::Lost(None)) };
        let seen = seen(&row).map_err(|failure| self.sorted(&failure))?;
        inner.clocks.compared(asked, seen.database_ms);
        let own = seen.holder == who.holder && !who.holder.is_empty();
        if seen.left > 0 && !own {
            inner.clocks.taken();
            return Ok(Election::Lost(seen.leader()));
        }
        if !own && !inner.clocks.may_lead(who.ttl) {
            return Ok(Election::Lost(None));
        }
        let sent = Moment::now();
        let take = sqlx::query(sql::TAKE).bind(&who.holder).bind(&who.address).bind(millis(who.ttl)).bind(seen.epoch);
        let won = inner.election.ask(&inner.database, limit, take).await.map_err(|failure| self.sorted(&failure))?;
        // Another server was faster.
        let Some(row) = won else { return Ok(Election::Lost(None)) };
        let read = |column| number(&row, column).map_err(|failure| self.sorted(&failure));
        let (epoch, settled) = (Epoch(read(0)?.cast_unsigned()), read(1)?);
        let forwarding_key = row.try_get(2).map_err(|error| self.sorted(&error.into()))?;
        let lead = Lead::new(epoch, forwarding_key, sent, who.ttl);
        // The renewals start now, even while an earlier commit still holds the writer.
        // Ends with the lead.
        tokio::spawn(keep(self.clone(), who.clone(), lead.clone()));
        match tokio::time::timeout(limit, inner.writer.lock()).await {
            Ok(mut writer) => writer.lead(epoch, settled),
            Err(_) => {
                self.resign(who, &lead).await;
                return Err(StoreError::Unavailable(format!("an earlier commit has not ended within {limit:?}")));
            }
        }
        Ok(Election::Won(lead))
    }

    /// Gives the lead back, so that another server need not wait for its end. This server answers nothing as leader afterwards.
    pub async fn resign(&self, who: &Candidate, lead: &Lead) {
        lead.lose();
        let inner = &*self.inner;
        let query = sqlx::query(sql::RESIGN).bind(lead.epoch().0.cast_signed()).bind(&who.holder);
        if let Err(failure) = inner.election.ask(&inner.database, Term::renewal_limit(who.ttl), query).await {
            let error = self.sorted(&failure);
            tracing::warn!(%error, "the lead cannot be given back; it ends by itself");
        }
    }
}

/// The row of the leader, and the database's clock.
struct Seen {
    address: String,
    left: i64,
    forwarding_key: String,
    holder: String,
    epoch: i64,
    database_ms: i64,
}

impl Seen {
    fn leader(self) -> Option<Leader> {
        let leads = self.left > 0 && !self.address.is_empty();
        let left = Duration::from_millis(self.left.unsigned_abs());
        leads.then_some(Leader { address: self.address, left, forwarding_key: self.forwarding_key })
    }
}

fn seen(row: &PgRow) -> Result<Seen, PgError> {
    Ok(Seen {
        address: row.try_get(0)?,
        left: number(row, 1)?,
        forwarding_key: row.try_get(2)?,
        holder: row.try_get(3)?,
        epoch: number(row, 4)?,
        database_ms: number(row, 5)?,
    })
}

/// The time of a request, by both clocks of this machine.
#[derive(Clone, Copy)]
struct Asked {
    wall_ms: i64,
    at: Moment,
}

impl Asked {
    fn now() -> Self {
        Asked { wall_ms: wall_ms(), at: Moment::now() }
    }
}

/// The database's clock, compared with that of this machine.
#[derive(Default)]
pub(super) struct Clocks(StdMutex<Compared>);

#[derive(Default)]
struct Compared {
    /// The database's clock minus the wall clock.
    offset: Option<Millis>,
    /// Start of the time without a leader, as far as this server knows.
    vacant: Option<Moment>,
}

impl Clocks {
    fn compared(&self, asked: Asked, database_ms: i64) {
        let way = i64::try_from(asked.at.past().as_millis()).unwrap_or(i64::MAX);
        // The database answered at some time between.
        let own = asked.wall_ms.saturating_add(way / 2);
        self.state().offset = Some(Millis(database_ms.saturating_sub(own)));
    }

    /// The database's clock minus the wall clock, at the latest comparison.
    pub(super) fn offset(&self) -> Option<Millis> {
        self.state().offset
    }

    /// Another server leads.
    fn taken(&self) {
        self.state().vacant = None;
    }

    /// Whether this server may try to lead while no server leads: at once with a right clock, after a time to live with a wrong one.
    fn may_lead(&self, ttl: Duration) -> bool {
        let mut state = self.state();
        let since = *state.vacant.get_or_insert_with(Moment::now);
        let right = state.offset.is_none_or(|offset| offset.0.saturating_abs() <= TOLERANCE.0);
        right || since.past() >= ttl
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Compared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renews the lead until it is lost or given back.
async fn keep(store: PostgresStore, who: Candidate, lead: Lead) {
    let inner: &Arc<super::Inner> = &store.inner;
    let mut wait = Term::renewal_limit(who.ttl);
    loop {
        tokio::select! {
            () = lead.lost() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let (sent, asked) = (Moment::now(), Asked::now());
        let query = sqlx::query(sql::RENEW).bind(lead.epoch().0.cast_signed()).bind(&who.holder).bind(millis(who.ttl));
        let renewal = match inner.election.ask(&inner.database, Term::renewal_limit(who.ttl), query).await {
            Ok(Some(row)) => {
                if let Ok(database_ms) = number(&row, 0) {
                    inner.clocks.compared(asked, database_ms);
                }
                lead.renewed(sent, who.ttl);
                Renewal::Done
            }
            Ok(None) => {
                tracing::warn!(epoch = lead.epoch().0, "another server has taken the lead");
                Renewal::Taken
            }
            Err(failure) => {
                let error = store.sorted(&failure);
                tracing::warn!(%error, ?lead, "the lead cannot be renewed; trying again");
                Renewal::Failed
            }
        };
        match Term::next_renewal(renewal, who.ttl) {
            Some(next) => wait = next,
            None => {
                lead.lose();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database whose clock differs by this from the one of this machine.
    fn off(by: Millis) -> Clocks {
        let clocks = Clocks::default();
        let asked = Asked::now();
        clocks.compared(asked, asked.wall_ms + by.0);
        clocks
    }

    #[test]
    fn a_server_with_a_wrong_clock_lets_another_one_lead_first() {
        let ttl = Duration::from_secs(60);
        for by in [Millis::ZERO, Millis(4000), Millis(-4000)] {
            assert!(off(by).may_lead(ttl), "{by}");
        }
        for by in [Millis(6000), Millis(-7_200_000)] {
            let clocks = off(by);
            assert!(!clocks.may_lead(ttl), "{by}");
            assert!((clocks.offset().unwrap().0 - by.0).abs() < 1000);
            // No other server has led for a time to live.
            clocks.state().vacant = Some(Moment::ago(ttl));
            assert!(clocks.may_lead(ttl), "{by}: a wrong clock is better than no leader");
            clocks.taken();
            assert!(!clocks.may_lead(ttl), "{by}: the wait begins again with each leader");
        }
    }
}
