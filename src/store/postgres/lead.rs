//! The row that says who leads: taken when it is free, renewed, given back.
//!
//! It decides who tries; it does not keep anybody from writing. That is done by the epoch in each commit, which is raised in
//! the statement that takes the row. See docs/adr/0015-leadership.md.

use super::connect::{Purpose, Site, part};
use super::error::Trouble;
use super::rows::number;
use super::{PostgresStore, sql};
use crate::store::lead::{Candidate, Election, Lead, Leader, Moment};
use crate::store::{Epoch, Renewal, StoreError, Term};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

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
    /// Takes the lead if nobody has it, and keeps it by renewing until [`PostgresStore::resign`] or until it is lost.
    ///
    /// # Errors
    /// The database does not answer; try again.
    pub async fn campaign(&self, who: &Candidate) -> Result<Election, StoreError> {
        let inner = &*self.inner;
        let sent = Moment::now();
        let take = sqlx::query(sql::TAKE).bind(&who.holder).bind(&who.address).bind(millis(who.ttl));
        let won = inner
            .ballot
            .ask(&inner.site, Term::attempt_limit(who.ttl), take)
            .await
            .map_err(|trouble| self.sorted(&trouble))?;
        if let Some(row) = won {
            let read = |column| number(&row, column).map_err(|trouble| self.sorted(&trouble));
            let epoch = Epoch(read(0)?.cast_unsigned());
            inner.writer.lock().await.lead(epoch, read(1)?);
            let pass = row.try_get(2).map_err(|error| self.sorted(&error.into()))?;
            let lead = Lead::new(epoch, pass, sent, who.ttl);
            tokio::spawn(keep(self.clone(), who.clone(), lead.clone()));
            return Ok(Election::Won(lead));
        }
        let found = inner.ballot.ask(&inner.site, Term::attempt_limit(who.ttl), sqlx::query(sql::LEADER)).await;
        let leader = match found.map_err(|trouble| self.sorted(&trouble))? {
            None => None,
            Some(row) => leader(&row).map_err(|trouble| self.sorted(&trouble))?,
        };
        Ok(Election::Lost(leader))
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

fn leader(row: &PgRow) -> Result<Option<Leader>, Trouble> {
    let left = number(row, 1)?;
    let address: String = row.try_get(0)?;
    let pass: String = row.try_get(2)?;
    let leads = left > 0 && !address.is_empty();
    Ok(leads.then(|| Leader { address, left: Duration::from_millis(left.unsigned_abs()), pass }))
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
        let sent = Moment::now();
        let query = sqlx::query(sql::RENEW).bind(lead.epoch().0.cast_signed()).bind(&who.holder).bind(millis(who.ttl));
        let renewal = match inner.ballot.ask(&inner.site, Term::renewal_limit(who.ttl), query).await {
            Ok(Some(_)) => {
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
