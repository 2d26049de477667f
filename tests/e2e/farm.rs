//! A farm of real sshd's with working copies on them, a client in this process that watches all leases, and what was
//! told when.

use crate::sshd::Sshd;
use crate::support::{PATIENCE, Server, repository};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use wharfinger::client::{Client, Watched};
use wharfinger::pb;
use wharfinger::pb::{LeaseRequest, LeaseState, Outcome, Selector};

/// Settings that differ from the defaults; lines of TOML.
#[derive(Clone, Copy, Default)]
pub(crate) struct Settings {
    /// Of the pool `hosts`.
    pub(crate) hosts: &'static str,
    /// Of its `[pool.ssh]`.
    pub(crate) ssh: &'static str,
    /// Of the pool `copies`.
    pub(crate) copies: &'static str,
    /// Of its `[pool.copies]`.
    pub(crate) git: &'static str,
}

/// One thing that the watch told.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: SystemTime,
    pub(crate) lease: pb::Lease,
}

pub(crate) struct Farm {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) hosts: Vec<Sshd>,
    settings: Settings,
    seen: Arc<Mutex<Vec<Seen>>>,
    work: tempfile::TempDir,
}

/// Ends a process, or stops it, or lets it go on. That it is gone already is fine.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// Names of the hosts, in their order.
pub(crate) const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Farm {
    /// Hosts `a`, `b`…, one slot each, and at most one copy, unless the settings say otherwise.
    pub(crate) fn start(hosts: Vec<Sshd>, settings: Settings) -> Self {
        Self::start_in(hosts, settings, tempfile::tempdir().unwrap())
    }

    /// The same, with this directory for what lies on the hosts.
    pub(crate) fn start_in(hosts: Vec<Sshd>, settings: Settings, work: tempfile::TempDir) -> Self {
        let server = Server::prepared("w.db");
        repository(&server.folder.path().join("origin"));
        server.configure("", &pools(&hosts, &settings, work.path(), &[]));
        Self::over(server, hosts, settings, work)
    }

    /// Starts this server, which was configured before, and watches it.
    pub(crate) fn over(mut server: Server, hosts: Vec<Sshd>, settings: Settings, work: tempfile::TempDir) -> Self {
        server.run();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(Client::connect(&server.address)).unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let mut watch = {
            let _inside = runtime.enter();
            client.watch(pb::WatchRequest { include_ended: true, ..pb::WatchRequest::default() })
        };
        let sink = seen.clone();
        runtime.spawn(async move {
            while let Ok(watched) = watch.next().await {
                if let Watched::Lease(lease) = watched {
                    sink.lock().unwrap().push(Seen { at: SystemTime::now(), lease: *lease });
                }
            }
        });
        Self { server, client, runtime, hosts, settings, seen, work }
    }

    /// The directory that holds what lies on the hosts.
    pub(crate) fn work(&self) -> &std::path::Path {
        self.work.path()
    }

    /// Writes the configuration anew, with these hosts disabled, and has the server read it.
    pub(crate) fn disable(&self, disabled: &[&str]) {
        self.server.configure("", &pools(&self.hosts, &self.settings, self.work.path(), disabled));
        self.server.reload();
    }

    /// Asks, and does not wait. A TTL of ten minutes needs no renewal.
    pub(crate) fn ask(&self, pool: &str, holder: &str, replace: bool) -> pb::Lease {
        let request = LeaseRequest {
            holder: holder.into(),
            selector: Some(Selector { pool: pool.into(), ..Selector::default() }),
            ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
            replace,
            ..LeaseRequest::default()
        };
        self.runtime.block_on(self.client.lease(request)).unwrap().lease.unwrap()
    }

    pub(crate) fn get(&self, lease: &str) -> pb::Lease {
        self.runtime.block_on(self.client.get(lease)).unwrap()
    }

    pub(crate) fn release(&self, lease: &str, outcome: Outcome) {
        self.runtime.block_on(self.client.release(lease, outcome, "")).unwrap();
    }

    /// Its holder says that its work fails, and keeps it.
    pub(crate) fn report(&self, lease: &str, note: &str) {
        self.runtime.block_on(self.client.report(lease, note)).unwrap();
    }

    /// The first thing told of a lease, since then, that fits; waits for it.
    pub(crate) fn told(&self, lease: &str, since: SystemTime, what: &str, fits: impl Fn(&pb::Lease) -> bool) -> Seen {
        self.server.wait(&format!("{lease} to be told {what}"), || self.was_told(lease, since, &fits))
    }

    /// The same, as far as its events have come by now.
    pub(crate) fn was_told(&self, lease: &str, since: SystemTime, fits: impl Fn(&pb::Lease) -> bool) -> Option<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().find(|seen| seen.lease.id == lease && seen.at >= since && fits(&seen.lease)).cloned()
    }

    /// Waits until a lease is active.
    pub(crate) fn active(&self, lease: &str) -> Seen {
        self.told(lease, SystemTime::UNIX_EPOCH, "that it is active", |lease| {
            assert!(
                !matches!(lease.state(), LeaseState::Failed | LeaseState::Cancelled),
                "it fails instead: {lease:?}"
            );
            lease.state() == LeaseState::Active
        })
    }

    pub(crate) fn resource(&self, id: &str) -> pb::Resource {
        let mut admin = self.client.admin();
        let request = pb::GetResourceRequest { resource_id: id.into(), ..pb::GetResourceRequest::default() };
        self.runtime.block_on(admin.get_resource(request)).unwrap().into_inner().resource.unwrap()
    }

    /// The codes of what blocks a waiting lease.
    pub(crate) fn blockers(&self, lease: &str) -> Vec<String> {
        let said = self.runtime.block_on(self.client.explain(lease)).unwrap();
        said.blockers.into_iter().map(|blocker| blocker.code).collect()
    }

    pub(crate) fn check(&self, resource: &str) {
        let mut admin = self.client.admin();
        let target =
            pb::CheckRequest { resource_id: resource.into(), reason: "test".into(), ..pb::CheckRequest::default() };
        self.runtime.block_on(admin.check(target)).unwrap();
    }

    /// The audit trail after this revision.
    pub(crate) fn events(&self, after: u64) -> Vec<pb::Event> {
        let mut admin = self.client.admin();
        let request = pb::EventsRequest { after_revision: after, page_size: 1000, ..Default::default() };
        self.runtime.block_on(admin.events(request)).unwrap().into_inner().events
    }

    /// The newest revision of anything.
    pub(crate) fn revision(&self) -> u64 {
        let mut admin = self.client.admin();
        self.runtime.block_on(admin.list_pools(pb::ListPoolsRequest::default())).unwrap().into_inner().revision
    }

    /// The sshd of this inventory entry.
    pub(crate) fn host(&mut self, item: &str) -> &mut Sshd {
        let at = NAMES.iter().position(|name| *name == item).unwrap();
        &mut self.hosts[at]
    }

    /// The sessions of a host: the connections that are open now.
    pub(crate) fn sessions(&mut self, item: &str) -> Vec<u32> {
        self.host(item).processes().split_off(1)
    }

    /// Resets the connections to this host; the sshd lives, and takes new ones.
    pub(crate) fn cut(&mut self, item: &str) {
        for pid in self.sessions(item) {
            send(pid, Signal::KILL);
        }
    }

    /// Waits until a resource is in this state.
    pub(crate) fn until(&self, resource: &str, state: pb::ResourceState) -> pb::Resource {
        self.server.wait(&format!("{resource} to be {state:?}"), || {
            let found = self.resource(resource);
            (found.state() == state).then_some(found)
        })
    }

    /// Lets this time pass while `holds` is asked again and again: the only proof of something that must not happen.
    pub(crate) fn throughout(&self, span: Duration, mut holds: impl FnMut(&Self)) {
        let begun = std::time::Instant::now();
        assert!(span < PATIENCE);
        while begun.elapsed() < span {
            holds(self);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

pub(crate) fn pools(hosts: &[Sshd], settings: &Settings, work: &std::path::Path, disabled: &[&str]) -> String {
    let mut inventory = String::new();
    for (name, sshd) in NAMES.iter().zip(hosts) {
        inventory.push_str(&format!(
            "[[pool.ssh.host]]\nname = \"{name}\"\naddress = \"{}\"\nport = {}\nuser = \"{}\"\nkey = \"{}\"\nhost_key = \"{}\"\nenabled = {}\n{}",
            sshd.address,
            sshd.port,
            sshd.user,
            sshd.key().display(),
            sshd.host_key(),
            !disabled.contains(name),
            if disabled.contains(name) { "disabled_reason = \"new disk on Monday\"\n" } else { "" },
        ));
    }
    format!(
        "[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\n{}\n[pool.ssh]\nwork_dir = \"{}\"\n{}\n{inventory}\n\
         [[pool]]\nname = \"copies\"\nadapter = \"copies\"\non = \"hosts\"\n{}\n[pool.copies]\n\
         repository = \"{{folder}}/origin\"\n{}\n",
        settings.hosts,
        work.display(),
        settings.ssh,
        if settings.copies.contains("max") {
            settings.copies.to_string()
        } else {
            format!("max = 1\n{}", settings.copies)
        },
        settings.git,
    )
}
