//! Boots an instance: waits until EC2 lists it as running, replaces the host key of its user data, reaches it with its own, and confirms
//! its id.

use crate::clock::now_ms;
use crate::cloud::{Instance, State};
use crate::config::Address;
use crate::pool::Pool;
use crate::record::{Host, KeyStage, Record};
use crate::state_reason::{EndedBy, StateReason};
use crate::{first_contact, user_data};
use std::fmt;
use std::time::Duration;
use tokio::time::sleep;
use wharfinger_adapter::{Blame, Command, Exit, Failure, Journal, ProvisionJob, Provisioned, ResourceJob};
use wharfinger_ssh::HostKeyType;

/// The first boot did not install the host key of an instance that shows another key for this long.
const MISMATCH_FOR_MS: i64 = 30_000;

/// An instance that ended before it was a host.
pub(crate) struct Ended {
    instance: String,
    pub(crate) spot: bool,
    pub(crate) reason: Option<StateReason>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "instance {} ended while it booted: {reason}", self.instance),
            None => write!(f, "instance {} ended while it booted, and EC2 gives no reason", self.instance),
        }
    }
}

impl Ended {
    /// The party that ended it. The provider, if EC2 gives no reason.
    pub(crate) fn by(&self) -> EndedBy {
        self.reason.as_ref().map_or(EndedBy::Provider, StateReason::ended_by)
    }
}

/// Result of a boot.
pub(crate) enum Proved {
    /// A host, and the handle of the ssh adapter.
    Host(Provisioned, String),
    /// The instance ended.
    Ended(Ended),
    /// The instance can be no host, and no other instance of the image could.
    Unfit(Failure),
}

/// A boot: the launch of an instance, and the journal that stores its host key.
pub(crate) struct Boot<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) job: &'a ProvisionJob,
    pub(crate) journal: &'a dyn Journal,
    pub(crate) attempt: u32,
    pub(crate) since_ms: i64,
}

/// Waits until the instance is a host that confirmed its id, or until it has ended.
pub(crate) async fn proved(boot: &Boot<'_>, host: &mut Host) -> Result<Proved, Failure> {
    let Boot { pool, since_ms, .. } = *boot;
    let deadline = since_ms.saturating_add(i64::try_from(pool.config.launch_timeout_ms).unwrap_or(i64::MAX));
    let mut last: Option<Failure> = None;
    let mut state = "in no list of EC2".to_string();
    let mut mismatch_ms: Option<i64> = None;
    loop {
        let seen = pool.account.look(&host.instance).await;
        if let Some(instance) = &seen {
            state = instance.state_text();
            if instance.state.is_over() {
                tracing::info!(pool = pool.name, instance = host.instance, state, "ended before it was a host");
                let ended = Ended { instance: host.instance.clone(), spot: host.spot, reason: instance.reason.clone() };
                if ended.by() == EndedBy::Capacity {
                    pool.account.interrupted(&host.instance);
                }
                return Ok(Proved::Ended(ended));
            }
            host.zone.clone_from(&instance.zone);
            host.instance_type.clone_from(&instance.instance_type);
            if let (State::Running, Some(address)) = (instance.state, address_of(pool, instance)) {
                match advanced(boot, host, address).await? {
                    Ok((made, ssh)) => return Ok(Proved::Host(made, ssh)),
                    Err(failure) if failure.reason == "METADATA_OPEN" => return Ok(Proved::Unfit(failure)),
                    Err(failure) if failure.reason == "HOST_KEY_MISMATCH" => {
                        let since_ms = *mismatch_ms.get_or_insert_with(now_ms);
                        if now_ms() - since_ms >= MISMATCH_FOR_MS {
                            return Ok(Proved::Unfit(other_key(host, &failure)));
                        }
                        last = Some(failure);
                    }
                    Err(failure) => {
                        mismatch_ms = None;
                        last = Some(failure);
                    }
                }
            }
        }
        if now_ms() >= deadline {
            break;
        }
        sleep(pool.account.settings().boot_poll).await;
    }
    let seconds = pool.config.launch_timeout_ms / 1000;
    Err(match last {
        Some(failure) if failure.reason == "HOST_KEY_MISMATCH" => {
            return Ok(Proved::Unfit(other_key(host, &failure)));
        }
        Some(failure) if failure.reason == "HOST_KEY_NOT_INSTALLED" => return Ok(Proved::Unfit(failure)),
        // Another instance would have the same fault.
        Some(failure) if failure.blame == Blame::Configuration => failure,
        // An sshd in FIPS mode does not start with an ed25519 key alone.
        Some(failure) if failure.reason == "UNREACHABLE" && pool.config.host_key_type == HostKeyType::Ed25519 => {
            let text = format!(
                "instance {} was no host after {seconds} s: {}; look at the security groups, and set host_key_type = \
                 \"ecdsa\" if the image runs in FIPS mode",
                host.instance, failure.message
            );
            Failure::resource(failure.reason, text)
        }
        Some(failure) => Failure::resource(
            failure.reason,
            format!("instance {} was no host after {seconds} s: {}", host.instance, failure.message),
        ),
        None => Failure::resource(
            "BOOT_TIMEOUT",
            format!("instance {} is {state}, and has no address or does not run after {seconds} s", host.instance),
        ),
    })
}

/// The failure of an instance that shows a key which is neither that of its user data nor its own.
fn other_key(host: &Host, failure: &Failure) -> Failure {
    let text = format!(
        "instance {} shows another host key than the one in its user data: {}; set host_key_type = \"ecdsa\" for images in \
         FIPS mode, else let the image's cloud-init install `ssh_keys`",
        host.instance, failure.message
    );
    Failure::configuration("HOST_KEY_MISMATCH", text)
}

/// Goes as far as the instance lets it: to its own host key, and to a host. The outer error is the journal's.
async fn advanced(
    boot: &Boot<'_>,
    host: &mut Host,
    address: String,
) -> Result<Result<(Provisioned, String), Failure>, Failure> {
    let Boot { pool, job, journal, attempt, since_ms } = *boot;
    if host.key_stage == KeyStage::Bootstrap {
        let own = match first_contact::own_key(pool, host, &address).await {
            Ok(own) => own,
            Err(failure) => return Ok(Err(failure)),
        };
        host.key_stage = KeyStage::Next(own);
        // Stored before the instance uses it: a broker that dies in between knows both keys.
        journal.write(&Record::Launched { attempt, since_ms, host: host.clone() }.text()?).await?;
        if let Err(failure) = first_contact::install(pool, host, &address).await {
            return Ok(Err(failure));
        }
    }
    let KeyStage::Next(own) = host.key_stage.clone() else { return Ok(reached(pool, job, host, address).await) };
    let with_own = Host { host_key: own, key_stage: KeyStage::Last, ..host.clone() };
    match reached(pool, job, &with_own, address.clone()).await {
        Ok(made) => {
            *host = with_own;
            Ok(Ok(made))
        }
        Err(failure) if failure.reason == "HOST_KEY_MISMATCH" => {
            // It was not asked yet, or its sshd is not that far.
            let installed = first_contact::install(pool, host, &address).await;
            Ok(Err(installed.err().unwrap_or_else(|| first_contact::not_installed(host, &failure.message))))
        }
        Err(failure) => Ok(Err(failure)),
    }
}

fn address_of(pool: &Pool, instance: &Instance) -> Option<String> {
    match pool.config.address {
        Address::Private => instance.private_address.clone(),
        Address::Public => instance.public_address.clone(),
    }
}

/// Logs in with the pinned key, checks the host, asks it for its instance id, and EC2 whether the instance is still at that address.
async fn reached(
    pool: &Pool,
    job: &ProvisionJob,
    host: &Host,
    address: String,
) -> Result<(Provisioned, String), Failure> {
    let entry = wharfinger_ssh::Host {
        name: host.instance.clone(),
        address: address.clone(),
        port: None,
        user: None,
        key: None,
        host_key: host.host_key.clone(),
        labels: std::collections::BTreeMap::new(),
        slots: None,
        enabled: true,
        disabled_reason: None,
        proxy_command: None,
    };
    let mut made = pool.ssh.provision_found(job, &entry).await?;
    let ssh = std::mem::take(&mut made.handle);
    let inner = ResourceJob { item: None, handle: Some(ssh.clone()), ..job.resource.clone() };
    let shell = wharfinger_adapter::Adapter::shell(&*pool.ssh, &inner).await?;
    let command = Command::sh(user_data::identity_command(&pool.config.imds)).timeout(Duration::from_secs(20));
    let output = shell.run(command).await.map_err(|error| Failure::resource("IDENTITY_UNKNOWN", error.to_string()))?;
    match output.exit {
        Exit::Code(0) => {}
        Exit::Code(3) => {
            let text =
                "curl is missing in the image, and without it the host cannot ask the metadata service; install curl";
            return Err(Failure::configuration("CURL_MISSING", text));
        }
        ref exit => {
            let text = format!("the host's metadata service returns no instance id ({exit:?}): {}", output.complaint());
            return Err(Failure::resource("IDENTITY_UNKNOWN", text));
        }
    }
    let reported = output.text();
    if reported != host.instance {
        let text = format!("the host at {address} is instance {reported:?}, and {} was launched", host.instance);
        return Err(Failure::resource("ANOTHER_INSTANCE", text));
    }
    // The address may have moved to another instance between the list and the login.
    match pool.account.look(&host.instance).await {
        Some(now) if now.state == State::Running && address_of(pool, &now).as_deref() == Some(address.as_str()) => {}
        Some(now) => {
            let text = format!("instance {} is {} now, or has another address", host.instance, now.state);
            return Err(Failure::resource("INSTANCE_CHANGED", text));
        }
        None => return Err(Failure::provider("EC2_FAILED", "EC2 did not return the instance after the login")),
    }
    for (key, value) in [
        ("zone", host.zone.clone()),
        ("instance_type", host.instance_type.clone()),
        ("market", if host.spot { "spot" } else { "on_demand" }.to_string()),
        ("instance", host.instance.clone()),
    ] {
        made.labels.insert(key.to_string(), value);
    }
    Ok((made, ssh))
}
