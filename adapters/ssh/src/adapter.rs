//! The adapter's calls.

use crate::authority::Authority;
use crate::config::{Config, Host};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::Kind;
use crate::holder_key::HolderKey;
use crate::key::{self, fingerprint};
use crate::logins::Logins;
use crate::notices::{NotHeard, Reporter};
use crate::probe::{self, Known};
use crate::pulse;
use crate::shell::SshShell;
use crate::watch_host;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use wharfinger_adapter::login::{BY_CERTIFICATE, ChildLogins};
use wharfinger_adapter::{
    Access, Adapter, CleanJob, CredentialSource, Failure, NoticeSink, PrepareJob, Prepared, ProvisionJob, Provisioned,
    ResourceJob, Shell, Traits, Verdict, access,
};
use wharfinger_host::check::{self, Boot, Needs};
use wharfinger_host::{announce, fence, reaper, sweep};

/// Leases the machines of an inventory. See the crate's documentation.
pub struct SshAdapter {
    pool: String,
    reporter: Arc<Reporter>,
    /// Held for moments only, never over an await.
    inventory: Mutex<Inventory>,
}

struct Inventory {
    config: Config,
    connections: BTreeMap<String, Arc<Connection>>,
    /// Hosts that were taken out of the inventory while they were leased, made from their resource's handle.
    retired: BTreeMap<String, Arc<Connection>>,
    /// The latest resource that each host was asked for. Its connection is that resource's to close.
    tenants: BTreeMap<String, String>,
}

/// Settings that were found good: keys are read, host keys are parsed.
pub struct Settings {
    config: Config,
    endpoints: BTreeMap<String, Endpoint>,
}

impl Settings {
    /// Checks a configuration.
    ///
    /// # Errors
    /// `BAD_CONFIG` (configuration), naming the host and the remedy.
    pub fn read(config: Config) -> Result<Self, Failure> {
        Ok(Self { endpoints: config.endpoints()?, config })
    }
}

/// The record of a resource. It is enough to find a host that is no longer in the inventory: its live leases still
/// need their clean-up. Paths of keys, never keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Handle {
    item: String,
    boot_id: String,
    /// Empty in the handles of older brokers: then it is not compared.
    #[serde(default)]
    init: String,
    /// Fingerprint of the host key.
    host_key: String,
    /// The host key itself.
    pinned: String,
    address: String,
    port: u16,
    user: String,
    key: PathBuf,
    #[serde(default)]
    proxy_command: Option<String>,
    /// Whether its slots had control groups.
    #[serde(default)]
    contained: bool,
    /// The user that holders log in as with certificates, by the setting of that time.
    #[serde(default)]
    login_user: Option<String>,
    /// Its scratch directory. It stays there, whatever `work_dir` is later. Older handles have none.
    #[serde(default)]
    scratch: Option<String>,
}

impl Handle {
    fn known(&self) -> Known<'_> {
        let boot = Boot { id: self.boot_id.clone(), init: self.init.clone() };
        Known { boot, host_key: &self.host_key }
    }
}

impl SshAdapter {
    /// An adapter for this pool.
    ///
    /// # Errors
    /// `BAD_CONFIG` (configuration), naming the host and the remedy.
    pub fn new(pool: String, config: Config) -> Result<Self, Failure> {
        let reporter = Arc::new(Reporter::new(pool.clone()));
        let connections = connect_all(config.endpoints()?, &reporter);
        let inventory =
            Mutex::new(Inventory { config, connections, retired: BTreeMap::new(), tenants: BTreeMap::new() });
        Ok(Self { pool, reporter, inventory })
    }

    /// Takes a changed inventory. Connections to hosts that are no longer there, or whose settings changed, are closed
    /// when their last command has ended; they are made again when a call needs them.
    ///
    /// # Errors
    /// `BAD_CONFIG` (configuration); then everything stays as it was.
    pub fn reconfigure(&self, config: Config) -> Result<(), Failure> {
        self.adopt(Settings::read(config)?);
        Ok(())
    }

    /// As [`SshAdapter::reconfigure`], with settings that were found good.
    pub fn adopt(&self, settings: Settings) {
        let Settings { config, endpoints } = settings;
        let mut inventory = self.inventory_lock();
        let mut connections = BTreeMap::new();
        for (name, endpoint) in endpoints {
            let connection = match inventory.connections.remove(&name) {
                Some(connection) if connection.endpoint == endpoint => connection,
                Some(_) | None => watched(endpoint, &self.reporter),
            };
            inventory.retired.remove(&name);
            connections.insert(name, connection);
        }
        inventory.connections = connections;
        inventory.config = config;
    }

    /// As [`Adapter::provision`], for a machine that is in no inventory: the caller launched it, and knows its host key. From
    /// then on it is found by its resource's handle, also by another process.
    ///
    /// # Errors
    /// As [`Adapter::provision`].
    pub async fn provision_found(&self, job: &ProvisionJob, host: &Host) -> Result<Provisioned, Failure> {
        {
            let mut inventory = self.inventory_lock();
            let alone = Config { hosts: vec![host.clone()], ..inventory.config.clone() };
            for (name, endpoint) in alone.endpoints()? {
                let same = inventory.retired.get(&name).is_some_and(|known| known.endpoint == endpoint);
                if !same {
                    let connection = watched(endpoint, &self.reporter);
                    inventory.retired.insert(name, connection);
                }
            }
        }
        let resource = ResourceJob { item: Some(host.name.clone()), handle: None, ..job.resource.clone() };
        self.provision(&ProvisionJob { resource, attempt: job.attempt }).await
    }

    /// Closes the connections to this machine: it is gone, and the next one with its address is another.
    pub async fn forget(&self, host: &str) {
        let connection = {
            let mut inventory = self.inventory_lock();
            inventory.tenants.remove(host);
            inventory.retired.remove(host)
        };
        if let Some(connection) = connection {
            connection.close().await;
        }
        self.reporter.forget(host);
    }

    /// The connections to the enabled machines of the inventory, in its order, each with the directory of the pool.
    pub(crate) fn enabled(&self) -> Vec<(Arc<Connection>, String)> {
        let inventory = self.inventory_lock();
        let hosts = inventory.config.hosts.iter().filter(|host| host.enabled);
        let known = hosts.filter_map(|host| inventory.connections.get(&host.name));
        known.map(|connection| (Arc::clone(connection), inventory.config.work_dir.clone())).collect()
    }

    /// The machines of the inventory, in its order, disabled ones among them.
    pub fn inventory(&self) -> Vec<Host> {
        self.inventory_lock().config.hosts.clone()
    }
}

/// Connections to a host whose end and announcements are reported.
fn watched(endpoint: Endpoint, reporter: &Arc<Reporter>) -> Arc<Connection> {
    Arc::new(Connection::new(endpoint, Some(Arc::clone(reporter)), watch_host::start))
}

/// A connection for each host, none of them made yet.
fn connect_all(endpoints: BTreeMap<String, Endpoint>, reporter: &Arc<Reporter>) -> BTreeMap<String, Arc<Connection>> {
    endpoints.into_iter().map(|(name, endpoint)| (name, watched(endpoint, reporter))).collect()
}

fn read_handle(job: &ResourceJob) -> Result<Option<Handle>, Failure> {
    let Some(text) = job.handle.as_deref() else { return Ok(None) };
    let handle = serde_json::from_str(text)
        .map_err(|error| Failure::bug("HANDLE_UNREADABLE", format!("handle {text:?}: {error}")))?;
    Ok(Some(handle))
}

fn needed_handle(job: &ResourceJob) -> Result<Handle, Failure> {
    read_handle(job)?.ok_or_else(|| Failure::bug("HANDLE_MISSING", "a host that was not made was to be checked"))
}

impl SshAdapter {
    /// The authority whose certificates let holders in, and the key that they are handed.
    pub(crate) fn ways_in(&self) -> (Option<Authority>, Option<HolderKey>) {
        let inventory = self.inventory_lock();
        (inventory.config.ca.clone(), HolderKey::of(&inventory.config))
    }

    fn inventory_lock(&self) -> std::sync::MutexGuard<'_, Inventory> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host of this job, which is the job's resource's from now on, unless a later resource has it. Ids sort by age.
    fn connection(&self, job: &ResourceJob) -> Result<Arc<Connection>, Failure> {
        self.find_connection(job, true)
    }

    /// The host of this job: from the inventory, or from the handle if it was taken out since.
    fn find_connection(&self, job: &ResourceJob, uses: bool) -> Result<Arc<Connection>, Failure> {
        let handle = read_handle(job)?;
        let Some(item) = job.item.clone().or_else(|| handle.as_ref().map(|handle| handle.item.clone())) else {
            return Err(Failure::bug(
                "ITEM_MISSING",
                format!("resource {} names no host of the inventory", job.resource),
            ));
        };
        let mut inventory = self.inventory_lock();
        // Under the same lock as the look for the connection: `leave` must not close it in between.
        if uses {
            let tenant = inventory.tenants.entry(item.clone()).or_default();
            if *tenant < job.resource {
                tenant.clone_from(&job.resource);
            }
        }
        if let Some(connection) = inventory.connections.get(&item).or_else(|| inventory.retired.get(&item)) {
            return Ok(Arc::clone(connection));
        }
        let Some(handle) = handle else {
            return Err(Failure::configuration(
                "HOST_UNKNOWN",
                format!(
                    "host {item:?} is not in the inventory of pool {:?}; add it, or let the resource go",
                    self.pool
                ),
            ));
        };
        let unusable = |why: key::KeyFault| {
            let text = format!(
                "host {item:?} was taken out of the inventory, and cannot be reached by what is known of it: {why}"
            );
            Failure::configuration("HOST_UNKNOWN", text)
        };
        let endpoint = Endpoint {
            name: item.clone(),
            address: handle.address,
            port: handle.port,
            user: handle.user,
            key: Arc::new(key::read_private(&handle.key).map_err(&unusable)?),
            certified: None,
            key_path: Some(handle.key),
            host_key: key::parse_host_key(&handle.pinned).map_err(&unusable)?,
            proxy_command: handle.proxy_command,
            limits: inventory.config.limits(),
        };
        let connection = watched(endpoint, &self.reporter);
        inventory.retired.insert(item, Arc::clone(&connection));
        Ok(connection)
    }

    /// Closes the connection to a host whose resource is gone. A later resource may have the host by now, when the janitor gets
    /// round to a forgotten one: then the connection stays.
    async fn leave(&self, job: &ResourceJob, connection: &Arc<Connection>) {
        let name = &connection.endpoint.name;
        {
            let mut inventory = self.inventory_lock();
            if inventory.tenants.get(name).is_some_and(|tenant| *tenant > job.resource) {
                return;
            }
            inventory.tenants.remove(name);
            inventory.retired.remove(name);
            // A resource that comes now gets a connection of its own.
            if let Some(kept) = inventory.connections.get_mut(name)
                && Arc::ptr_eq(kept, connection)
            {
                *kept = watched(connection.endpoint.clone(), &self.reporter);
            }
        }
        connection.close().await;
    }

    /// Connects. A host that is to go is not made ready, only to be taken away from those who got it. What is known of its end may be
    /// from before it went, so its watch gets time to report.
    async fn no_end_announced(&self, connection: &Arc<Connection>) -> Result<(), Failure> {
        let endpoint = &connection.endpoint;
        let begun = Instant::now();
        loop {
            // Each time: one that was found dead meanwhile says nothing.
            connection.kept().await?;
            if endpoint.limits.watch.is_none() {
                return Ok(());
            }
            let said = self.reporter.end_of(&endpoint.name);
            match said {
                Ok(None) => return Ok(()),
                _ if begun.elapsed() < HEARD_WITHIN => tokio::time::sleep(LOOK).await,
                // A host that cannot be watched announces nothing.
                Err(NotHeard) => return Ok(()),
                Ok(Some((source, text))) => return Err(announce::not_made(&endpoint.name, source, &text)),
            }
        }
    }

    /// The authority whose certificates let holders in: that of the pool now, or the one of the time when the host was made ready.
    fn authority(&self, job: &ResourceJob) -> Result<Option<Authority>, Failure> {
        Ok(match self.ways_in() {
            (Some(authority), _) => Some(authority),
            (None, _) => read_handle(job)?.and_then(|handle| handle.login_user).map(Authority::known_by),
        })
    }

    fn needs(&self, job: &ResourceJob) -> Needs {
        let inventory = self.inventory_lock();
        let work_dir = inventory.config.work_dir.trim_end_matches('/');
        let handle = read_handle(job).ok().flatten();
        let contained = handle.as_ref().is_some_and(|handle| handle.contained);
        let scratch = handle.and_then(|handle| handle.scratch);
        Needs {
            scratch: scratch.unwrap_or_else(|| format!("{work_dir}/hosts/{}", job.resource)),
            free_disk_mb: inventory.config.min_free_disk_mb,
            containment: inventory.config.containment,
            contained,
        }
    }

    /// Marks the host's directory, and takes away what earlier resources of this entry left there. Says whether it is marked.
    async fn sweep(&self, shell: &SshShell, job: &ResourceJob, scratch: &str) -> Result<bool, Failure> {
        let Some(owner) = sweep::owner(job) else { return Ok(true) };
        let swept = sweep::claim(shell, scratch, &owner).await?;
        let host = &shell.connection.endpoint.name;
        if swept.resources > 0 || swept.processes > 0 {
            let (resources, processes) = (swept.resources, swept.processes);
            tracing::info!(pool = self.pool, host, resources, processes, "took away what earlier resources left");
        }
        if !swept.kept.is_empty() {
            tracing::warn!(pool = self.pool, host, kept = swept.kept, "cannot be taken away; remove it by hand");
        }
        Ok(swept.marked)
    }
}

#[async_trait]
impl Adapter for SshAdapter {
    fn traits(&self) -> Traits {
        // A machine of an inventory is its owner's: what is wrong with it, its owner mends.
        Config::TRAITS
    }

    async fn provision(&self, job: &ProvisionJob) -> Result<Provisioned, Failure> {
        let job = &job.resource;
        let connection = self.connection(job)?;
        let endpoint = &connection.endpoint;
        self.no_end_announced(&connection).await?;
        let shell = SshShell { connection: Arc::clone(&connection) };
        let needs = self.needs(job);
        // Before the proof, which finds the disk full as long as leftovers are not on their way out.
        let marked = self.sweep(&shell, job, &needs.scratch).await?;
        let limit = probe::proof_limit(&connection);
        let output = shell.run_kept(&check::facts_command(&needs, true, limit)).await?;
        let facts = check::read_facts(&output)?;
        check::judge(&endpoint.name, &facts, &needs)?;
        if !marked {
            let text = format!(
                "host {}: {} cannot be written; look at the disk and its permissions",
                endpoint.name,
                sweep::beside(&needs.scratch)
            );
            return Err(Failure::resource("OWNER_NOT_WRITTEN", text));
        }
        self.prove_logins(&shell).await?;
        tracing::debug!(pool = self.pool, host = endpoint.name, resource = job.resource, "host is proved");

        let pinned = endpoint.host_key.to_openssh().map_err(|e| Failure::bug("HOST_KEY", e.to_string()))?;
        let handle = Handle {
            item: endpoint.name.clone(),
            boot_id: facts.boot.id.clone(),
            init: facts.boot.init,
            host_key: fingerprint(&endpoint.host_key),
            pinned: pinned.clone(),
            address: endpoint.address.clone(),
            port: endpoint.port,
            user: endpoint.user.clone(),
            key: endpoint.key_path.clone().unwrap_or_default(),
            proxy_command: endpoint.proxy_command.clone(),
            contained: facts.contained,
            login_user: self.inventory_lock().config.ca.as_ref().map(|authority| authority.user.clone()),
            scratch: Some(needs.scratch.clone()),
        };
        let handle = serde_json::to_string(&handle).map_err(|e| Failure::bug("HANDLE_UNWRITABLE", e.to_string()))?;
        let mut access = Access::from(
            [
                (access::TRANSPORT, "ssh".to_string()),
                (access::ADDRESS, endpoint.address.clone()),
                (access::PORT, endpoint.port.to_string()),
                (access::USER, endpoint.user.clone()),
                (access::HOST_KEY, pinned),
                (access::PATH, needs.scratch.clone()),
                (access::BOOT_ID, facts.boot.id),
            ]
            .map(|(key, value)| (key.to_string(), value)),
        );
        access.extend(check::contained_access(facts.contained, &needs.containment.limits));
        if let Some(command) = &endpoint.proxy_command {
            access.insert(access::PROXY_COMMAND.to_string(), command.clone());
        }
        Ok(Provisioned { handle, access, labels: facts.labels })
    }

    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure> {
        let mut access = Access::new();
        let (authority, holder_key) = self.ways_in();
        if let Some(key) = holder_key {
            // A slot is not granted while its holder could not log in. The key itself goes into no answer of ours.
            key.read().await?;
        }
        if job.child.is_none() {
            // Also the last look before a holder gets it: a host that died since the last probe is noticed here.
            let connection = self.connection(&job.resource)?;
            connection.kept().await?;
            let needs = self.needs(&job.resource);
            let fence = fence::path(&needs.scratch, job.work.slot);
            let command = fence::set_command(&fence, job.work.token, &job.work.lease, &needs.slot());
            let shell = SshShell { connection };
            let output = probe::run_while_it_answers(&shell, &command).await?;
            fence::was_set(&fence, job.work.token, &output)?;
            if let Some(authority) = &authority {
                access.extend(Logins { shell: &shell, authority }.let_in(&job.work, &fence, &needs.scratch).await?);
            }
            access.insert(access::FENCE.to_string(), fence);
            access.extend(check::contained_access(needs.contained, &needs.containment.limits));
        } else if let Some(authority) = authority {
            access.insert(access::LOGIN.to_string(), BY_CERTIFICATE.to_string());
            access.insert(access::USER.to_string(), authority.user);
        }
        Ok(Prepared { access, ..Prepared::default() })
    }

    fn attend(&self, job: &ResourceJob, held: bool) {
        if let Ok(connection) = self.find_connection(job, false) {
            pulse::attend(&connection, held);
        }
    }

    async fn clean(&self, job: &CleanJob) -> Result<(), Failure> {
        let connection = self.connection(&job.resource)?;
        // Asked first for its typed answer; what the shell says later is coarser.
        connection.kept().await?;
        let shell = SshShell { connection };
        // First the way in, and what came that way.
        let sessions = match self.authority(&job.resource)? {
            Some(authority) => Logins { shell: &shell, authority: &authority }.shut_out(&job.work).await?,
            None => 0,
        };
        let fence = fence::path(&self.needs(&job.resource).scratch, job.work.slot);
        let reaped = reaper::end_lease(&shell, &job.work.lease, &fence, job.work.token).await?;
        let (host, lease, killed) = (&shell.connection.endpoint.name, &job.work.lease, sessions + reaped.killed);
        if killed > 0 {
            tracing::info!(pool = self.pool, host, lease, killed, "ended what a lease left running");
        }
        for hit in &reaped.hits {
            tracing::info!(pool = self.pool, host, lease, "{hit}");
        }
        Ok(())
    }

    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let handle = needed_handle(job)?;
        let shell = SshShell { connection: self.connection(job)? };
        let login = self.holder_login().await?;
        probe::check(&shell, &self.needs(job), &handle.known(), login).await
    }

    async fn probe(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let handle = needed_handle(job)?;
        probe::probe(&self.connection(job)?, &handle.known()).await
    }

    async fn probe_login(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        let (handle, connection) = (needed_handle(job)?, self.connection(job)?);
        match probe::probe(&connection, &handle.known()).await? {
            Verdict::Healthy => probe::log_in_anew(&connection, self.holder_login().await?).await,
            other => Ok(other),
        }
    }

    async fn repair(&self, _job: &ResourceJob) -> Result<(), Failure> {
        Err(Failure::bug("NO_REPAIR", "ssh hosts are not repaired by the broker"))
    }

    /// Forgets the host. Its scratch directory is removed if it answers; a machine that is not there, or is another by
    /// now, needs no clean-up, and the inventory will say whether it comes back.
    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure> {
        let connection = match self.find_connection(job, false) {
            Ok(connection) => connection,
            // Neither inventory nor handle knows it: nothing was ever made.
            Err(_) if job.handle.is_none() => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let shell = SshShell { connection: Arc::clone(&connection) };
        let removed = match connection.kept().await {
            Ok(_) => match remove(&shell, &self.needs(job).scratch).await {
                Err(failure) if failure.reason == "UNREACHABLE" => Ok(()),
                other => other,
            },
            Err(error) if error.unreachable_reason().is_some() => Ok(()),
            Err(error) if matches!(error.kind, Kind::WrongHost { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if removed.is_ok() {
            self.leave(job, &connection).await;
        }
        removed
    }

    async fn open_logins(&self, logins: &ChildLogins) -> Result<(), Failure> {
        let (Some(authority), _) = self.ways_in() else { return Ok(()) };
        if authority.has_slot_users() {
            let text = "working copies are their host user's, and holders log in as users of slots: set user in [pool.ssh.ca] \
                        to the user of the pool";
            return Err(Failure::configuration("SLOT_USERS", text));
        }
        let path = |key: &str| logins.access.get(key).cloned().unwrap_or_default();
        let shell = SshShell { connection: self.connection(&logins.host)? };
        let (fence, dir) = (path(access::FENCE), path(access::PATH));
        Logins { shell: &shell, authority: &authority }.let_in(&logins.work, &fence, &dir).await.map(drop)
    }

    async fn close_logins(&self, logins: &ChildLogins) -> Result<(), Failure> {
        let Some(authority) = self.authority(&logins.host)? else { return Ok(()) };
        if authority.has_slot_users() {
            return Ok(());
        }
        let shell = SshShell { connection: self.connection(&logins.host)? };
        Logins { shell: &shell, authority: &authority }.shut_out(&logins.work).await.map(drop)
    }

    async fn shell(&self, job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        Ok(Arc::new(SshShell { connection: self.connection(job)? }))
    }

    fn subscribe(&self, sink: NoticeSink) {
        self.reporter.subscribe(sink);
    }
}

/// The directory first: as long as something is there, the mark says whose it is.
async fn remove(shell: &SshShell, scratch: &str) -> Result<(), Failure> {
    check::remove_tree(shell, scratch, Some(REMOVE_LIMIT)).await?;
    check::remove_tree(shell, &sweep::beside(scratch), Some(REMOVE_LIMIT)).await
}

/// From a new connection to the first word of the watch on its host: two looks, and a start.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

const LOOK: Duration = Duration::from_millis(20);

/// A big tree on a slow disk takes its time.
const REMOVE_LIMIT: Duration = Duration::from_secs(600);
