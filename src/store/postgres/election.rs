//! The row that says who leads: taken when it is free, renewed, given back.
//!
//! It decides who tries; it does not keep anybody from writing. That is done by the epoch in each commit, which is raised in
//! the statement that takes the row. See docs/adr/0015-leadership.md.

use super::connect::{Purpose, Site, part};
use super::error::Trouble;
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

/// A connection for all that has to do with the lead, so that none of it waits for a commit.
#[derive(Default)]
pub(super) struct Ballot {
    conn: Mutex<Option<PgConnection>>,
}

impl Ballot {
    /// Asks for one row at most, in this time. The connection is kept only if it answered.
    async fn ask(
        &self,
        site: &Site,
        limit: Duration,
        query: sqlx::query::Query<'_, sqlx::Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, Trouble> {
        let asked = async {
            let mut place = self.conn.lock().await;
            let mut conn = match place.take() {
                Some(conn) => conn,
                None => site.connect(Purpose::Read).await?,
            };
            let row = query.fetch_optional(&mut conn).await?;
            *place = Some(conn);
            Ok(row)
        };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(Trouble::Store(StoreError::Unavailable(format!(
                "the database {} does not answer within {limit:?}",
                site.place
            ))))
        })
    }

    pub(super) async fn close(&self) {
        if let Some(conn) = self.conn.lock().await.take() {
            part(conn).await;
        }
    }
}

/// A text for the time of a candidate, in milliseconds.
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
    /// The database does not answer; try again.
    pub async fn campaign(&self, who: &Candidate) -> Result<Election, StoreError> {
        let inner = &*self.inner;
        let asked = Asked::now();
        let limit = Term::attempt_limit(who.ttl);
        let found = inner.ballot.ask(&inner.site, limit, sqlx::query(sql::LEADER)).await;
        let Some(row) = found.map_err(|trouble| self.sorted(&trouble))? else { return Ok(Election::Lost(None)) };
        let seen = seen(&row).map_err(|trouble| self.sorted(&trouble))?;
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
        let won = inner.ballot.ask(&inner.site, limit, take).await.map_err(|trouble| self.sorted(&trouble))?;
        // Another server was faster.
        let Some(row) = won else { return Ok(Election::Lost(None)) };
        let read = |column| number(&row, column).map_err(|trouble| self.sorted(&trouble));
        let (epoch, settled) = (Epoch(read(0)?.cast_unsigned()), read(1)?);
        let pass = row.try_get(2).map_err(|error| self.sorted(&error.into()))?;
        let lead = Lead::new(epoch, pass, sent, who.ttl);
        // It is renewed from here on, however long a commit of before keeps the writer.
        tokio::spawn(keep(self.clone(), who.clone(), lead.clone()));
        match tokio::time::timeout(limit, inner.writer.lock()).await {
            Ok(mut writer) => writer.lead(epoch, settled),
            Err(_) => {
                self.resign(who, &lead).await;
                return Err(StoreError::Unavailable(format!("a commit of before has not ended within {limit:?}")));
            }
        }
        Ok(Election::Won(lead))
    }

    /// Gives the lead back, so that another need not wait for its end. Nothing may be answered as leader from here on.
    pub async fn resign(&self, who: &Candidate, lead: &Lead) {
        lead.lose();
        let inner = &*self.inner;
        let query = sqlx::query(sql::RESIGN).bind(lead.epoch().0.cast_signed()).bind(&who.holder);
        if let Err(trouble) = inner.ballot.ask(&inner.site, Term::renewal_limit(who.ttl), query).await {
            let error = self.sorted(&trouble);
            tracing::warn!(%error, "the lead could not be given back; it ends by itself");
        }
    }
}

/// The row of the leader, and the database's clock.
struct Seen {
    address: String,
    left: i64,
    pass: String,
    holder: String,
    epoch: i64,
    database_ms: i64,
}

impl Seen {
    fn leader(self) -> Option<Leader> {
        let leads = self.left > 0 && !self.address.is_empty();
        let left = Duration::from_millis(self.left.unsigned_abs());
        leads.then_some(Leader { address: self.address, left, pass: self.pass })
    }
}

fn seen(row: &PgRow) -> Result<Seen, Trouble> {
    Ok(Seen {
        address: row.try_get(0)?,
        left: number(row, 1)?,
        pass: row.try_get(2)?,
        holder: row.try_get(3)?,
        epoch: number(row, 4)?,
        database_ms: number(row, 5)?,
    })
}

/// When a question was sent, by both clocks of this machine.
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

/// The database's clock beside that of this machine.
#[derive(Default)]
pub(super) struct Clocks(StdMutex<Compared>);

#[derive(Default)]
struct Compared {
    /// The database's clock minus the wall clock.
    offset: Option<Millis>,
    /// Since when no server leads, as far as this one has seen.
    vacant: Option<Moment>,
}

impl Clocks {
    fn compared(&self, asked: Asked, database_ms: i64) {
        let way = i64::try_from(asked.at.past().as_millis()).unwrap_or(i64::MAX);
        // The answer is from some time between.
        let own = asked.wall_ms.saturating_add(way / 2);
        self.state().offset = Some(Millis(database_ms.saturating_sub(own)));
    }

    /// The database's clock minus the wall clock, when they were last compared.
    pub(super) fn offset(&self) -> Option<Millis> {
        self.state().offset
    }

    /// Another server leads.
    fn taken(&self) {
        self.state().vacant = None;
    }

    /// No server leads. Whether this one may try: at once with a right clock, and after a time to live with a wrong one.
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
        let renewal = match inner.ballot.ask(&inner.site, Term::renewal_limit(who.ttl), query).await {
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
            Err(trouble) => {
                let error = store.sorted(&trouble);
                tracing::warn!(%error, ?lead, "the lead could not be renewed; trying again");
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

    /// A database whose clock is this far from ours.
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
            // No other one has come for a time to live.
            clocks.state().vacant = Some(Moment::ago(ttl));
            assert!(clocks.may_lead(ttl), "{by}: a wrong clock is better than no leader");
            clocks.taken();
            assert!(!clocks.may_lead(ttl), "{by}: the wait begins again with each leader");
        }
    }
}
