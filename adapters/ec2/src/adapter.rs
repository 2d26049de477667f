//! The calls of the adapter. It launches and terminates instances; the ssh adapter makes the calls in between.

use crate::account::Account;
use crate::accounts::Accounts;
use crate::broker::Broker;
use crate::config::Config;
use crate::pool::Pool;
use crate::record::{Host, Record};
use crate::{provision, reconcile, terminate, user_data};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::mpsc;
use wharfinger_adapter::{
    Adapter, CleanJob, Failure, Journal, Notice, NoticeSink, NoticeTarget, PrepareJob, Prepared, ProvisionJob,
    Provisioned, ResourceJob, Shell, Traits, Verdict,
};
use wharfinger_ssh::SshAdapter;

/// Leases EC2 instances. See the crate's documentation.
pub struct Ec2Adapter {
    pool: Pool,
}

impl Ec2Adapter {
    /// Creates the adapter of a pool.
    ///
    /// # Errors
    /// `BAD_CONFIG` (configuration), with the key and the remedy.
    pub fn new(pool: String, config: Config, clouds: &Accounts) -> Result<Self, Failure> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem.into_failure("BAD_CONFIG"));
        }
        if let Some(key) = &config.ssh.key {
            wharfinger_ssh::public_of(key)?;
        }
        let mut ssh = config.ssh.clone();
        if ssh.notice_command.is_none() {
            ssh.notice_command = Some(user_data::imds_command(&config.imds));
            ssh.notice_source = "imds";
        }
        let ssh = Arc::new(SshAdapter::new(pool.clone(), ssh)?);
        let account = clouds.account(&config);
        let template = config.template_spec(&pool);
        Ok(Self { pool: Pool { name: pool, config, account, ssh, template } })
    }

    /// Starts the loops of the pool's account, unless they run: lists, status checks, the queue, orphans.
    pub fn attend(&self, broker: Arc<dyn Broker>) {
        if self.pool.account.attend(broker) {
            reconcile::start(&self.pool.account);
        }
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The account that the pool shares with others.
    pub fn account(&self) -> &Arc<Account> {
        &self.pool.account
    }

    /// Returns the host and the job in the form of the ssh adapter.
    fn inner(&self, job: &ResourceJob) -> Result<(Host, ResourceJob), Failure> {
        match Record::read(job.handle.as_deref())? {
            Some(Record::Ready { host, ssh, .. }) => {
                self.pool.account.owned(&self.pool.name, &job.resource, &host);
                let inner = ResourceJob { item: None, handle: Some(ssh), ..job.clone() };
                Ok((host, inner))
            }
            Some(Record::Launching { .. } | Record::Launched { .. } | Record::Over { .. }) | None => {
                Err(Failure::bug("HANDLE_MISSING", format!("{} has no host yet", job.resource)))
            }
        }
    }

    /// Turns the silence of a host into its end, if EC2 reports that the instance has ended or is missing.
    fn with_ec2s_word(&self, host: &Host, verdict: Verdict) -> Verdict {
        let Verdict::Unreachable { .. } = &verdict else { return verdict };
        let account = &self.pool.account;
        if let Some(instance) = account.instance(&host.instance).filter(|instance| instance.state.is_over()) {
            let detail = format!("instance {} is {}", instance.id, instance.state_text());
            return Verdict::Gone { reason: "INSTANCE_OVER", detail };
        }
        if account.is_vanished(&host.instance) {
            let detail = format!("EC2 no longer lists instance {}, and it does not answer", host.instance);
            return Verdict::Gone { reason: "INSTANCE_MISSING", detail };
        }
        verdict
    }
}

#[async_trait]
impl Adapter for Ec2Adapter {
    fn traits(&self) -> Traits {
        Config::TRAITS
    }

    /// The instance boots at the provider.
    fn provision_waits(&self) -> bool {
        true
    }

    async fn provision(&self, _job: &ProvisionJob) -> Result<Provisioned, Failure> {
        Err(Failure::bug("NO_JOURNAL", "a launch needs a journal that stores its request first"))
    }

    async fn provision_noted(&self, job: &ProvisionJob, journal: &dyn Journal) -> Result<Provisioned, Failure> {
        provision::provision(&self.pool, job, journal).await
    }

    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure> {
        let (_, resource) = self.inner(&job.resource)?;
        self.pool.ssh.prepare(&PrepareJob { resource, ..job.clone() }).await
    }

    fn attend(&self, job: &ResourceJob, held: bool) {
        if let Ok((_, inner)) = self.inner(job) {
            self.pool.ssh.attend(&inner, held);
        }
    }

    async fn clean(&self, job: &CleanJob) -> Result<(), Failure> {
        let (_, resource) = self.inner(&job.resource)?;
        self.pool.ssh.clean(&CleanJob { resource, ..job.clone() }).await
    }

    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let (host, inner) = self.inner(job)?;
        Ok(self.with_ec2s_word(&host, self.pool.ssh.check(&inner).await?))
    }

    async fn probe(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let (host, inner) = self.inner(job)?;
        Ok(self.with_ec2s_word(&host, self.pool.ssh.probe(&inner).await?))
    }

    async fn probe_login(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let (host, inner) = self.inner(job)?;
        Ok(self.with_ec2s_word(&host, self.pool.ssh.probe_login(&inner).await?))
    }

    async fn repair(&self, _job: &ResourceJob) -> Result<(), Failure> {
        Err(Failure::bug("NO_REPAIR", "the broker replaces instances and does not repair them"))
    }

    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure> {
        let account = &self.pool.account;
        let Some(note) = Record::read(job.handle.as_deref())? else { return Ok(()) };
        match &note {
            Record::Over { .. } => Ok(()),
            Record::Launched { host, .. } | Record::Ready { host, .. } => {
                self.pool.ssh.forget(&host.instance).await;
                terminate::instance(&self.pool, host).await?;
                account.forget(&host.instance);
                Ok(())
            }
            Record::Launching { launch, .. } => {
                let since_ms = note.doubtful_since_ms(account.began_ms).unwrap_or(account.began_ms);
                terminate::launched(&self.pool, &job.resource, launch, since_ms).await
            }
        }
    }

    async fn shell(&self, job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        let (_, inner) = self.inner(job)?;
        self.pool.ssh.shell(&inner).await
    }

    fn subscribe(&self, sink: NoticeSink) {
        // The ssh adapter names a host by its instance, the broker by its resource.
        let (own, mut heard) = mpsc::channel::<Notice>(64);
        self.pool.ssh.subscribe(own);
        let account = Arc::downgrade(&self.pool.account);
        // Ends with the ssh adapter, or with the account.
        tokio::spawn(async move {
            while let Some(mut notice) = heard.recv().await {
                let Some(account) = account.upgrade() else { return };
                if let NoticeTarget::Item(instance) = &notice.target {
                    let Some(owner) = account.owner(instance) else { continue };
                    if notice.source == "imds" && matches!(notice.kind, wharfinger_adapter::NoticeKind::Interruption(_))
                    {
                        account.interrupted(instance);
                    }
                    notice.target = NoticeTarget::Resource(owner.resource);
                }
                if sink.send(notice).await.is_err() {
                    return;
                }
            }
        });
    }
}
