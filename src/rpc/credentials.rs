//! Credentials of leases: read from their source when an answer needs them, and stored nowhere (ADR 19).
//!
//! A source is made from the configuration of its pool, on the server that leads and on those that follow.

use crate::engine::SubmitError;
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert::{self, tell_lease};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use wharfinger_adapter::login::CertificateSource;
use wharfinger_adapter::{CredentialSource, Credentials, Failure};
use wharfinger_core::{Caller, Lease, LeaseState};

/// Maximum time that an answer waits for a source.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Where the credentials of a pool's leases come from.
#[derive(Clone)]
pub enum PoolCredentials {
    /// The pool hands out none.
    None,
    /// The pool has a source of its own.
    Source(Arc<dyn CredentialSource>),
    /// The pool signs a certificate for each holder that asks: no answer carries a credential.
    Certificates(Arc<dyn CertificateSource>),
    /// The pool's resources lie on hosts; the pool of the host hands them out.
    OfHost,
}

/// The credential sources of all pools. Cheap to clone; a reload of the configuration replaces sources in it.
#[derive(Clone, Default)]
pub struct CredentialSources {
    /// A pool that leaves the configuration stays here, since its leases live on.
    pools: Arc<RwLock<BTreeMap<String, PoolCredentials>>>,
    /// Pools whose source failed the last time. Each failure is logged once.
    failing: Arc<Mutex<BTreeSet<String>>>,
}

impl CredentialSources {
    /// Sets the source of a pool.
    pub fn set(&self, pool: impl Into<String>, credentials: PoolCredentials) {
        self.pools.write().unwrap_or_else(PoisonError::into_inner).insert(pool.into(), credentials);
    }

    fn get(&self, pool: &str) -> Option<PoolCredentials> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).get(pool).cloned()
    }

    /// The message of a lease for this caller, with credentials if the lease belongs to it.
    pub(crate) async fn tell(
        &self,
        context: &Context,
        lease: &Lease,
        caller: &Caller,
    ) -> Result<pb::Lease, SubmitError> {
        let mut told = tell_lease(lease, &caller.sees, context.reading());
        if !caller.owns(&lease.spec) {
            return Ok(told);
        }
        let (LeaseState::Active { .. }, Some(pool)) = (&lease.state, &lease.pool) else {
            return Ok(told);
        };
        let Some((pool, found)) = self.of_lease(context, lease, pool, caller).await? else { return Ok(told) };
        match found {
            Some(PoolCredentials::Source(source)) => match self.read(&pool, &*source).await {
                Ok(credentials) => told.credentials = Some(convert::credentials(credentials)),
                Err(failure) => told.missing_credentials = Some(missing(&pool, failure.reason)),
            },
            Some(PoolCredentials::None | PoolCredentials::Certificates(_) | PoolCredentials::OfHost) => {}
            None => told.missing_credentials = Some(missing(&pool, "POOL_REMOVED")),
        }
        Ok(told)
    }

    /// The source of the certificates of a lease, with the pool that it belongs to. `None`: holders log in without.
    pub(crate) async fn certificates(
        &self,
        context: &Context,
        lease: &Lease,
        caller: &Caller,
    ) -> Result<Option<(String, Arc<dyn CertificateSource>)>, SubmitError> {
        let Some(pool) = &lease.pool else { return Ok(None) };
        Ok(match self.of_lease(context, lease, pool, caller).await? {
            Some((pool, Some(PoolCredentials::Certificates(source)))) => Some((pool, source)),
            Some(_) | None => None,
        })
    }

    /// The pool whose credentials the lease has, and these; for a lease on a copy those of the host's pool. `None`: the lease has
    /// ended since, since its resource or the host is gone.
    async fn of_lease(
        &self,
        context: &Context,
        lease: &Lease,
        pool: &str,
        caller: &Caller,
    ) -> Result<Option<(String, Option<PoolCredentials>)>, SubmitError> {
        let found = self.get(pool);
        if !matches!(found, Some(PoolCredentials::OfHost)) {
            return Ok(Some((pool.to_owned(), found)));
        }
        let id = lease.id;
        let host = context.read(&caller.sees, move |view, _| view.pool_of_host(id)).await?;
        Ok(host.map(|host| {
            let found = self.get(&host);
            (host.to_string(), found)
        }))
    }

    async fn read(&self, pool: &str, source: &dyn CredentialSource) -> Result<Credentials, Failure> {
        let read = tokio::time::timeout(READ_LIMIT, source.read()).await.unwrap_or_else(|_| {
            Err(Failure::provider("CREDENTIALS_TIMED_OUT", format!("no answer within {READ_LIMIT:?}")))
        });
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match &read {
            Ok(_) if failing.remove(pool) => tracing::info!(pool, "the credentials of the pool can be read again"),
            Err(failure) if failing.insert(pool.to_owned()) => {
                tracing::warn!(pool, reason = failure.reason, "answers lack credentials: {}", failure.message);
            }
            Ok(_) | Err(_) => {}
        }
        read
    }
}

/// The remedy for a holder. The failure itself names files of the server, so it stays in the log.
fn missing(pool: &str, reason: &str) -> pb::MissingCredentials {
    let detail = match reason {
        "POOL_REMOVED" => format!(
            "this server's configuration has no pool {pool}: ask its operator to put the pool back, or use a key of your own"
        ),
        _ => format!(
            "this server cannot read the credentials of pool {pool}; its log says why: ask its operator, then ask again, \
             or use a key of your own"
        ),
    };
    pb::MissingCredentials { reason: reason.to_owned(), detail }
}
