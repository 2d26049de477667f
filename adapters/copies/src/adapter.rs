//! The [`Adapter`] of working copies. Each call is a module of its own.

use crate::checkout::TrustedIndexes;
use crate::config::Config;
use crate::parts::Parts;
use crate::{clean, prepare, probe, provision};
use async_trait::async_trait;
use std::sync::Arc;
use wharfinger_adapter::{
    Adapter, CleanJob, Failure, PrepareJob, Prepared, ProvisionJob, Provisioned, ResourceJob, Shell, Traits, Verdict,
};

/// Makes, prepares, checks and destroys git working copies on the hosts of its jobs.
#[derive(Clone, Debug)]
pub struct CopiesAdapter {
    pool: String,
    config: Config,
    trusted: Arc<TrustedIndexes>,
}

impl CopiesAdapter {
    /// Returns the adapter of one pool.
    ///
    /// # Errors
    /// `BAD_SETTING` ([`wharfinger_adapter::Blame::Configuration`]), with the name of the pool and of the setting.
    pub fn new(pool: String, mut config: Config) -> Result<Self, Failure> {
        config.validate().map_err(|mut problem| {
            problem.message = format!("pool {pool:?}: {}", problem.message);
            problem.into_failure("BAD_SETTING")
        })?;
        // The credentials are bound before `rewrite` or a submodule changes an address.
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
