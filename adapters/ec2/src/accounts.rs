//! The accounts of this process. Pools with one region, endpoint, deployment and queue share one.

use crate::account::Account;
use crate::cloud::Cloud;
use crate::config::Config;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Make = dyn Fn(&Config) -> Arc<dyn Cloud> + Send + Sync;

/// Region, endpoint, deployment, queue.
type Key = (String, Option<String>, String, Option<String>);

/// Creates accounts, and keeps them for the life of the process.
#[derive(Clone)]
pub struct Accounts {
    make: Arc<Make>,
    accounts: Arc<Mutex<BTreeMap<Key, Arc<Account>>>>,
}

impl Accounts {
    /// Accounts of AWS, by the SDK. The first call loads the credentials.
    #[cfg(feature = "sdk")]
    pub fn aws() -> Self {
        Self::of(|config| Arc::new(crate::aws::Aws::new(&config.region, config.endpoint.as_deref())))
    }

    /// Accounts of another implementation of [`Cloud`].
    pub fn of(make: impl Fn(&Config) -> Arc<dyn Cloud> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), accounts: Arc::default() }
    }

    /// Returns the account of a pool.
    pub(crate) fn account(&self, config: &Config) -> Arc<Account> {
        let key = (config.region.clone(), config.endpoint.clone(), config.deployment.clone(), config.queue.clone());
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(key).or_insert_with(|| Arc::new(Account::new((self.make)(config), config)));
        account.joined(config);
        Arc::clone(account)
    }

    /// Tries each call that a pool needs.
    pub async fn examine(&self, pool: &str, config: &Config) -> Vec<crate::doctor::Finding> {
        crate::doctor::examine(&*(self.make)(config), pool, config).await
    }

    /// Returns all accounts.
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
