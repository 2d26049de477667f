//! The hubs of this process: pools of one account, region and deployment share one.

use crate::cloud::Cloud;
use crate::config::Config;
use crate::hub::Hub;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Make = dyn Fn(&Config) -> Arc<dyn Cloud> + Send + Sync;

/// Region, endpoint, deployment, queue.
type Key = (String, Option<String>, String, Option<String>);

/// Makes hubs, and keeps them as long as the process lives.
#[derive(Clone)]
pub struct Clouds {
    make: Arc<Make>,
    hubs: Arc<Mutex<BTreeMap<Key, Arc<Hub>>>>,
}

impl Clouds {
    /// With AWS behind them, by the SDK. Nothing is asked before the first call.
    #[cfg(feature = "sdk")]
    pub fn aws() -> Self {
        Self::of(|config| Arc::new(crate::aws::Aws::new(&config.region, config.endpoint.as_deref())))
    }

    /// With something else behind them.
    pub fn of(make: impl Fn(&Config) -> Arc<dyn Cloud> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), hubs: Arc::default() }
    }

    /// The hub of this pool.
    pub(crate) fn hub(&self, config: &Config) -> Arc<Hub> {
        let key = (config.region.clone(), config.endpoint.clone(), config.deployment.clone(), config.queue.clone());
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        let hub = hubs.entry(key).or_insert_with(|| Arc::new(Hub::new((self.make)(config), config)));
        hub.joined(config);
        Arc::clone(hub)
    }

    /// Tries what this pool needs of its cloud.
    pub async fn examine(&self, pool: &str, config: &Config) -> Vec<crate::doctor::Finding> {
        crate::doctor::examine(&*(self.make)(config), pool, config).await
    }

    /// All hubs, for reports.
    pub fn hubs(&self) -> Vec<Arc<Hub>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
