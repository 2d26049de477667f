//! The accounts of this process: pools of one account, region and deployment share one.

use crate::account::Account;
use crate::cloud::Cloud;
use crate::config::Config;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Make = dyn Fn(&Config) -> Arc<dyn Cloud> + Send + Sync;

/// Region, endpoint, deployment, queue.
type Key = (String, Option<String>, String, Option<String>);

/// Makes accounts, and keeps them as long as the process lives.
#[derive(Clone)]
pub struct Accounts {
    make: Arc<Make>,
    accounts: Arc<Mutex<BTreeMap<Key, Arc<Account>>>>,
}

impl Accounts {
    /// With AWS behind them, by the SDK. Nothing is asked before the first call.
    #[cfg(feature = "sdk")]
    pub fn aws() -> Self {
        Self::of(|config| Arc::new(crate::aws::Aws::new(&config.region, config.endpoint.as_deref())))
    }

    /// With something else behind them.
    pub fn of(make: impl Fn(&Config) -> Arc<dyn Cloud> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), accounts: Arc::default() }
    }

    /// The account of this pool.
    pub(crate) fn account(&self, config: &Config) -> Arc<Account> {
        let key = (config.region.clone(), config.endpoint.clone(), config.deployment.clone(), config.queue.clone());
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(key).or_insert_with(|| Arc::new(Account::new((self.make)(config), config)));
        account.joined(config);
        Arc::clone(account)
    }

    /// Tries what this pool needs of its cloud.
    pub async fn examine(&self, pool: &str, config: &Config) -> Vec<crate::doctor::Finding> {
        crate::doctor::examine(&*(self.make)(config), pool, config).await
    }

    /// All accounts, for reports.
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
