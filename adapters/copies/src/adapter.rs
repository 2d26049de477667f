//! The [`Adapter`] of working copies: which step comes when is in the modules beside it.

use crate::checkout::TrustedIndexes;
use crate::config::Config;
use crate::parts::Parts;
use crate::{clean, prepare, probe, provision};
use async_trait::async_trait;
use std::sync::Arc;
use wharfinger_adapter::{
    Adapter, CleanJob, Failure, PrepareJob, Prepared, ProvisionJob, Provisioned, ResourceJob, Shell, Traits, Verdict,
};

/// Makes and keeps git working copies on the hosts that its jobs name.
#[derive(Clone, Debug)]
pub struct CopiesAdapter {
    pool: String,
    config: Config,
    trusted: Arc<TrustedIndexes>,
}

impl CopiesAdapter {
    /// An adapter for one pool. Bad settings are [`wharfinger_adapter::Blame::Configuration`], with the setting's name.
    pub fn new(pool: String, mut config: Config) -> Result<Self, Failure> {
        config.validate().map_err(|mut problem| {
            problem.message = format!("pool {pool:?}: {}", problem.message);
            problem.into_failure("BAD_SETTING")
        })?;
        // Before anything else can be in the place of the pool's own addresses.
        config.credentials = config.credentials.take().map(|credentials| credentials.bound_to(config.addresses()));
        Ok(Self { pool, config, trusted: Arc::default() })
    }

    /// The pool's name.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The pool's settings.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

#[async_trait]
impl Adapter for CopiesAdapter {
    fn traits(&self) -> Traits {
        self.config.traits()
    }

    async fn provision(&self, job: &ProvisionJob) -> Result<Provisioned, Failure> {
        let parts = Parts::of(&job.resource, &self.config)?;
        self.trusted.forget(&job.resource.resource);
        Ok(provision::provision(&parts, job.resource.op).await?)
    }

    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure> {
        let parts = Parts::of(&job.resource, &self.config)?;
        Ok(prepare::prepare(&parts, &job.work, &self.trusted).await?)
    }

    async fn clean(&self, job: &CleanJob) -> Result<(), Failure> {
        let parts = Parts::of(&job.resource, &self.config)?;
        Ok(clean::clean(&parts, job, &self.trusted).await?)
    }

    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        probe::check(&Parts::of(job, &self.config)?).await
    }

    async fn probe(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        probe::probe(&Parts::of(job, &self.config)?).await
    }

    async fn repair(&self, job: &ResourceJob) -> Result<(), Failure> {
        self.trusted.forget(&job.resource);
        Ok(probe::repair(&Parts::of(job, &self.config)?, job.op).await?)
    }

    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure> {
        self.trusted.forget(&job.resource);
        Ok(provision::destroy(&Parts::of(job, &self.config)?.whole).await?)
    }

    async fn shell(&self, job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        Ok(Parts::of(job, &self.config)?.whole.shell)
    }
}
