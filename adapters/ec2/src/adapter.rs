//! The adapter's calls: buying and giving back here, everything between by the ssh adapter.

use crate::buckets::Kind;
use crate::cloud::{Instance, LISTED_AFTER_MS, Launch, TemplateSpec, Which};
use crate::clouds::Clouds;
use crate::config::Config;
use crate::error::Class;
use crate::hub::{Broker, Hub, now_ms};
use crate::note::{Host, Note};
use crate::{provision, reconcile, tags, user_data};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wharfinger_adapter::{
    Adapter, CleanJob, Failure, Journal, Notice, NoticeSink, NoticeTarget, PrepareJob, Prepared, ProvisionJob,
    Provisioned, ResourceJob, Shell, Traits, Verdict,
};
use wharfinger_ssh::SshAdapter;

/// Leases EC2 instances. See the crate's documentation.
pub struct Ec2Adapter {
    parts: Parts,
}

/// What the calls work with.
pub(crate) struct Parts {
    pub(crate) pool: String,
    pub(crate) config: Config,
    pub(crate) hub: Arc<Hub>,
    pub(crate) ssh: Arc<SshAdapter>,
    /// What fleets of this pool are launched from.
    pub(crate) template: TemplateSpec,
}

impl Ec2Adapter {
    /// An adapter for this pool.
    ///
    /// # Errors
    /// `BAD_CONFIG` (configuration), naming the key and the remedy.
    pub fn new(pool: String, config: Config, clouds: &Clouds) -> Result<Self, Failure> {
        config.validate()?;
        if let Some(key) = &config.ssh.key {
            wharfinger_ssh::public_of(key)?;
        }
        let mut ssh = config.ssh.clone();
        if ssh.notice_command.is_none() {
            ssh.notice_command = Some(user_data::imds_command(&config.imds));
            ssh.notice_source = "imds";
        }
        let ssh = Arc::new(SshAdapter::new(pool.clone(), ssh)?);
        let hub = clouds.hub(&config);
        let template = config.template_spec(&pool);
        Ok(Self { parts: Parts { pool, config, hub, ssh, template } })
    }

    /// Begins to watch the instances of this pool's hub, if nobody does yet: lists, the queue, orphans.
    pub fn attend(&self, broker: Arc<dyn Broker>) {
        if self.parts.hub.attend(broker) {
            reconcile::start(&self.parts.hub);
        }
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The hub that this pool shares with others.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.parts.hub
    }

    /// The job as the ssh adapter knows it.
    fn inner(&self, job: &ResourceJob) -> Result<(Host, ResourceJob), Failure> {
        match Note::read(job.handle.as_deref())? {
            Some(Note::Ready { host, ssh, .. }) => {
                self.parts.hub.owned(&self.parts.pool, &job.resource, &host);
                let inner = ResourceJob { item: None, handle: Some(ssh), ..job.clone() };
                Ok((host, inner))
            }
            Some(Note::Launching { .. } | Note::Launched { .. } | Note::Over { .. }) | None => Err(Failure::bug(
                "HANDLE_MISSING",
                format!("{} was not made, and is asked for as a host", job.resource),
            )),
        }
    }

    /// Silence of a host that EC2 says is no more is its end.
    fn with_ec2s_word(&self, host: &Host, verdict: Verdict) -> Verdict {
        let Verdict::Unreachable { .. } = &verdict else { return verdict };
        let hub = &self.parts.hub;
        if let Some(instance) = hub.instance(&host.instance).filter(|instance| instance.state.is_over()) {
            let reason = instance.reason.unwrap_or_else(|| "no reason given".to_string());
            let detail = format!("instance {} is {:?}: {reason}", instance.id, instance.state);
            return Verdict::Gone { reason: "INSTANCE_OVER", detail };
        }
        if hub.is_vanished(&host.instance) {
            let detail = format!("EC2 knows no instance {} any more, and it does not answer", host.instance);
            return Verdict::Gone { reason: "INSTANCE_MISSING", detail };
        }
        verdict
    }

    /// Ends one instance; `Ok`: EC2 says that it ends, or that it is no more.
    async fn terminate(&self, host: &Host) -> Result<(), Failure> {
        let hub = &self.parts.hub;
        let doing = format!("terminating {}", host.instance);
        let said = hub.call(Kind::Terminate, hub.cloud.terminate(std::slice::from_ref(&host.instance))).await;
        match said {
            Ok(()) => {}
            // Not known (yet), which does not mean that it is no more.
            Err(error) if error.class == Class::NotFound => {}
            Err(error) => return Err(error.failure(&doing)),
        }
        let which = Which::Ids(vec![host.instance.clone()]);
        let found = hub.all_instances(&which).await.map_err(|error| error.failure(&doing))?;
        match found.into_iter().find(|instance| instance.id == host.instance) {
            Some(instance) => {
                let ended = instance.state.is_ended();
                hub.saw(instance);
                if ended { Ok(()) } else { Err(not_yet(&host.instance, "EC2 does not say yet that it ends")) }
            }
            None if now_ms() - host.launched_ms > LISTED_AFTER_MS => Ok(()),
            None => Err(not_yet(&host.instance, "it was launched moments ago, and is not in EC2's lists yet")),
        }
    }

    /// Ends the instances of a resource whose launch has no known outcome. `Ok`: none is left, and none can appear any more.
    async fn terminate_launched(&self, resource: &str, launch: &Launch, since_ms: i64) -> Result<(), Failure> {
        let hub = &self.parts.hub;
        let which = Which::Tagged(tags::RESOURCE, resource.to_string());
        let doing = "listing the instances of a launch without a known outcome";
        let mut found = hub.all_instances(&which).await.map_err(|error| error.failure(doing))?;
        found.retain(|instance| instance.tags.get(tags::DEPLOYMENT) == Some(&self.parts.config.deployment));
        let is_alive = |instance: &&Instance| !instance.state.is_ended();
        let alive: Vec<String> = found.iter().filter(is_alive).map(|instance| instance.id.clone()).collect();
        if !alive.is_empty() {
            let answer = hub.call(Kind::Terminate, hub.cloud.terminate(&alive)).await;
            answer.map_err(|error| error.failure("terminating the instances of a launch without a known outcome"))?;
            return Err(not_yet(&alive.join(", "), "its end was requested, and EC2 has not confirmed it"));
        }
        // One client token launches one instance, so a listed one is the last.
        let attempt = launch.tags.get(tags::ATTEMPT);
        let is_known = found.iter().any(|instance| instance.tags.get(tags::ATTEMPT) == attempt);
        if is_known || now_ms() - since_ms > LISTED_AFTER_MS {
            return Ok(());
        }
        Err(not_yet("without a known id", "EC2 may list the instance of a launch request without an answer later"))
    }
}

fn not_yet(instance: &str, why: &str) -> Failure {
    let mut failure = Failure::provider("NOT_TERMINATED_YET", format!("instance {instance}: {why}"));
    failure.retry_after = Some(Duration::from_secs(5));
    failure
}

#[async_trait]
impl Adapter for Ec2Adapter {
    fn traits(&self) -> Traits {
        // What is wrong with an instance is not mended: the next one costs minutes.
        Traits { prepares: true, cleans: true, repairs: false, probes: true }
    }

    /// The machine boots at the provider.
    fn provision_waits(&self) -> bool {
        true
    }

    async fn provision(&self, _job: &ProvisionJob) -> Result<Provisioned, Failure> {
        Err(Failure::bug("NO_JOURNAL", "instances are launched only by requests that were written down before"))
    }

    async fn provision_noted(&self, job: &ProvisionJob, journal: &dyn Journal) -> Result<Provisioned, Failure> {
        provision::provision(&self.parts, job, journal).await
    }

    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure> {
        let (_, resource) = self.inner(&job.resource)?;
        self.parts.ssh.prepare(&PrepareJob { resource, ..job.clone() }).await
    }

    async fn clean(&self, job: &CleanJob) -> Result<(), Failure> {
        let (_, resource) = self.inner(&job.resource)?;
        self.parts.ssh.clean(&CleanJob { resource, ..job.clone() }).await
    }

    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let (host, inner) = self.inner(job)?;
        Ok(self.with_ec2s_word(&host, self.parts.ssh.check(&inner).await?))
    }

    async fn probe(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let (host, inner) = self.inner(job)?;
        Ok(self.with_ec2s_word(&host, self.parts.ssh.probe(&inner).await?))
    }

    async fn probe_login(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let (host, inner) = self.inner(job)?;
        Ok(self.with_ec2s_word(&host, self.parts.ssh.probe_login(&inner).await?))
    }

    async fn repair(&self, _job: &ResourceJob) -> Result<(), Failure> {
        Err(Failure::bug("NO_REPAIR", "instances are not repaired by the broker"))
    }

    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure> {
        let hub = &self.parts.hub;
        let Some(note) = Note::read(job.handle.as_deref())? else { return Ok(()) };
        match &note {
            Note::Over { .. } => Ok(()),
            Note::Launched { host, .. } | Note::Ready { host, .. } => {
                self.parts.ssh.forget(&host.instance).await;
                self.terminate(host).await?;
                hub.forget(&host.instance);
                Ok(())
            }
            Note::Launching { launch, .. } => {
                let since_ms = note.doubtful_since_ms(hub.began_ms).unwrap_or(hub.began_ms);
                self.terminate_launched(&job.resource, launch, since_ms).await
            }
        }
    }

    async fn shell(&self, job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        let (_, inner) = self.inner(job)?;
        self.parts.ssh.shell(&inner).await
    }

    fn subscribe(&self, sink: NoticeSink) {
        // The ssh adapter names hosts by their instance; the broker knows them by their resource.
        let (own, mut heard) = mpsc::channel::<Notice>(64);
        self.parts.ssh.subscribe(own);
        let hub = Arc::downgrade(&self.parts.hub);
        tokio::spawn(async move {
            while let Some(mut notice) = heard.recv().await {
                let Some(hub) = hub.upgrade() else { return };
                if let NoticeTarget::Item(instance) = &notice.target {
                    let Some(owner) = hub.owner(instance) else { continue };
                    if notice.source == "imds" && matches!(notice.kind, wharfinger_adapter::NoticeKind::Interruption(_))
                    {
                        hub.interrupted(instance);
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
