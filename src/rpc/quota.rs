//! Limits of tenants that the port keeps, in memory: how often a tenant requests leases, and how much of it waits at this server.

use crate::rpc::status::RpcError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use wharfinger_core::{Rate, Tenants};

/// One request, in parts of a million.
const REQUEST: u64 = 1_000_000;
/// Buckets beyond which those that are full again are forgotten.
const MANY: usize = 1024;

/// The limits of all tenants. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Quotas(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    tenants: Arc<Tenants>,
    buckets: BTreeMap<Arc<str>, Bucket>,
    stays: BTreeMap<Arc<str>, u32>,
}

/// A bucket of tokens.
#[derive(Debug)]
struct Bucket {
    /// In parts of a request.
    level: u64,
    at: Instant,
}

/// A watch or a waiting call of a tenant. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Stay {
    quotas: Quotas,
    tenant: Arc<str>,
}

impl Quotas {
    /// Sets the configured tenants. Those that stay keep their levels.
    pub fn set(&self, tenants: Arc<Tenants>) {
        self.state().tenants = tenants;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token for a request of a tenant.
    ///
    /// # Errors
    /// [`RpcError::RateLimited`] with the time until there is one.
    pub(crate) fn take(&self, tenant: &Arc<str>, now: Instant) -> Result<(), RpcError> {
        let mut state = self.state();
        let State { tenants, buckets, .. } = &mut *state;
        let Some(rate) = tenants.of(tenant).and_then(|tenant| tenant.rate) else { return Ok(()) };
        if buckets.len() > MANY {
            let of = |tenant: &Arc<str>| tenants.of(tenant).and_then(|tenant| tenant.rate);
            buckets.retain(|tenant, bucket| of(tenant).is_some_and(|rate| !bucket.is_full(rate, now)));
        }
        // A server that has just become the leader does not know what was taken before.
        let half = (u64::from(rate.burst) * REQUEST / 2).max(REQUEST);
        let bucket = buckets.entry(tenant.clone()).or_insert(Bucket { level: half, at: now });
        bucket.take(rate, now).map_err(|wait| RpcError::RateLimited { tenant: tenant.to_string(), wait })
    }

    /// Takes a place for a watch or a waiting call of a tenant.
    ///
    /// # Errors
    /// [`RpcError::TenantWatches`].
    pub(crate) fn stay(&self, tenant: &Arc<str>) -> Result<Stay, RpcError> {
        let mut state = self.state();
        let most = state.tenants.of(tenant).and_then(|tenant| tenant.max_watches);
        let count = state.stays.entry(tenant.clone()).or_default();
        if let Some(max) = most.filter(|most| *count >= *most) {
            return Err(RpcError::TenantWatches { tenant: tenant.to_string(), max });
        }
        *count += 1;
        Ok(Stay { quotas: self.clone(), tenant: tenant.clone() })
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut state = self.quotas.state();
        if let Some(count) = state.stays.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.stays.remove(&self.tenant);
            }
        }
    }
}

impl Bucket {
    fn fill(&mut self, rate: Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        // Requests in a thousand seconds are parts of a request in a millisecond.
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let more = millis.saturating_mul(u64::from(rate.per_thousand_seconds));
        self.level = self.level.saturating_add(more).min(u64::from(rate.burst) * REQUEST);
        self.at += Duration::from_millis(millis);
    }

    fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.level >= u64::from(rate.burst) * REQUEST
    }

    /// Takes a token, or returns the time until there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.level < REQUEST {
            let missing = REQUEST - self.level;
            return Err(Duration::from_millis(missing.div_ceil(u64::from(rate.per_thousand_seconds).max(1))));
        }
        self.level -= REQUEST;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfinger_core::Tenant;

    fn quotas(tenant: Tenant) -> Quotas {
        let quotas = Quotas::default();
        quotas.set(Arc::new(Tenants { named: [(Arc::from("web"), tenant)].into(), others: Some(Tenant::default()) }));
        quotas
    }

    fn wait(taken: Result<(), RpcError>) -> Duration {
        match taken {
            Err(RpcError::RateLimited { wait, .. }) => wait,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bucket_is_half_full_at_first_and_the_time_that_it_says_is_enough() {
        let quotas = quotas(Tenant { rate: Some(Rate { per_thousand_seconds: 2000, burst: 10 }), ..Tenant::default() });
        let (web, mut now) = (Arc::from("web"), Instant::now());
        for _ in 0..5 {
            quotas.take(&web, now).unwrap();
        }
        let left = wait(quotas.take(&web, now));
        assert_eq!(left, Duration::from_millis(500), "two in a second");
        now += left - Duration::from_millis(1);
        assert_eq!(wait(quotas.take(&web, now)), Duration::from_millis(1), "a refused request takes nothing");
        now += Duration::from_millis(1);
        quotas.take(&web, now).unwrap();
        now += Duration::from_secs(3600);
        for _ in 0..10 {
            quotas.take(&web, now).unwrap();
        }
        wait(quotas.take(&web, now));
        quotas.take(&Arc::from("mobile"), now).unwrap();
    }

    #[test]
    fn slow_rates_lose_no_time_between_requests() {
        let quotas = quotas(Tenant { rate: Some(Rate { per_thousand_seconds: 1, burst: 1 }), ..Tenant::default() });
        let (web, start) = (Arc::from("web"), Instant::now());
        quotas.take(&web, start).unwrap();
        for second in 1..1000 {
            wait(quotas.take(&web, start + Duration::from_micros(second * 999_990)));
        }
        quotas.take(&web, start + Duration::from_secs(1000)).unwrap();
    }

    #[test]
    fn a_reload_changes_the_rate_and_full_buckets_are_forgotten() {
        let limited = Tenant { rate: Some(Rate { per_thousand_seconds: 1000, burst: 2 }), ..Tenant::default() };
        let quotas = Quotas::default();
        quotas.set(Arc::new(Tenants { named: BTreeMap::new(), others: Some(limited) }));
        let now = Instant::now();
        for n in 0..3000 {
            quotas.take(&Arc::from(format!("t{n}")), now + Duration::from_secs(n)).unwrap();
        }
        assert!(quotas.state().buckets.len() <= MANY + 1);
        quotas.set(Arc::default());
        for _ in 0..10 {
            quotas.take(&Arc::from("t0"), now).unwrap();
        }
    }

    #[test]
    fn watches_of_a_tenant_are_counted_until_they_end() {
        let quotas = quotas(Tenant { max_watches: Some(2), ..Tenant::default() });
        let web = Arc::from("web");
        let (first, _second) = (quotas.stay(&web).unwrap(), quotas.stay(&web).unwrap());
        assert!(matches!(quotas.stay(&web), Err(RpcError::TenantWatches { max: 2, .. })));
        drop(first);
        let _third = quotas.stay(&web).unwrap();
        assert!(quotas.stay(&web).is_err());
        let _others: Vec<Stay> = (0..5).map(|_| quotas.stay(&Arc::from("mobile")).unwrap()).collect();
    }
}
