//! An adapter on an account in memory, and a broker that records its notices.

use crate::broker::{Broker, Phase, Row};
use crate::cloud::Cloud;
use crate::config::Config;
use crate::config::tests::GOOD;
use crate::fake::FakeCloud;
use crate::pool::Pool;
use crate::record::{Host, Record};
use crate::{Accounts, Ec2Adapter, provision};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use wharfinger_adapter::{Failure, Journal, Notice, NoticeKind, NoticeTarget, ProvisionJob, ResourceJob};

/// A journal in memory.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) all: Mutex<Vec<String>>,
    launched: Notify,
}

impl Notes {
    pub(super) fn from(note: String) -> Self {
        Self { all: Mutex::new(vec![note]), launched: Notify::new() }
    }

    pub(super) fn last(&self) -> Option<String> {
        self.all.lock().unwrap().last().cloned()
    }

    pub(super) fn note(&self) -> Option<Record> {
        Record::read(self.last().as_deref()).unwrap()
    }
}

#[async_trait]
impl Journal for Notes {
    async fn write(&self, note: &str) -> Result<(), Failure> {
        self.all.lock().unwrap().push(note.to_string());
        if matches!(self.note(), Some(Record::Launched { .. })) {
            self.launched.notify_one();
        }
        Ok(())
    }
}

/// A broker with these rows.
#[derive(Default)]
pub(super) struct Books {
    pub(super) rows: Mutex<Vec<Row>>,
    pub(super) told: Mutex<Vec<Notice>>,
    pub(super) away: AtomicBool,
}

#[async_trait]
impl Broker for Books {
    async fn rows(&self) -> Result<Vec<Row>, Failure> {
        self.here()?;
        Ok(self.rows.lock().unwrap().clone())
    }

    async fn tell(&self, notice: Notice) -> Result<(), Failure> {
        self.here()?;
        self.told.lock().unwrap().push(notice);
        Ok(())
    }
}

impl Books {
    fn here(&self) -> Result<(), Failure> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Failure::provider("BROKER_AWAY", "as the test wants it"));
        }
        Ok(())
    }

    /// Returns the notices since the last call: resource, kind, source.
    pub(super) fn heard(&self) -> Vec<(String, NoticeKind, &'static str)> {
        let told: Vec<Notice> = self.told.lock().unwrap().drain(..).collect();
        told.into_iter()
            .map(|notice| match notice.target {
                NoticeTarget::Resource(id) => (id, notice.kind, notice.source),
                NoticeTarget::Item(item) => panic!("the broker knows no {item}"),
            })
            .collect()
    }
}

pub(super) struct World {
    pub(super) cloud: Arc<FakeCloud>,
    pub(super) adapter: Ec2Adapter,
    pub(super) books: Arc<Books>,
    _folder: tempfile::TempDir,
    config: Config,
}

pub(super) fn job(resource: &str, handle: Option<String>) -> ProvisionJob {
    let resource =
        ResourceJob { pool: "spot".into(), resource: resource.into(), op: 1, item: None, handle, parent: None };
    ProvisionJob { resource, attempt: 0 }
}

impl World {
    /// Creates a world. Nothing listens at the addresses of its instances, so they fail after a minute.
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, wharfinger_ssh::host_key().unwrap().private).unwrap();
        let mut config: Config = toml::from_str(GOOD).unwrap();
        config.ssh.key = Some(key);
        config.ssh.port = 1;
        config.launch_timeout_ms = 60_000;
        change(&mut config);
        let cloud = Arc::new(FakeCloud::new());
        cloud.at("127.0.0.1");
        let adapter = Self::adapter_on(&cloud, &config);
        let books = Arc::new(Books::default());
        adapter.account().attend(books.clone());
        Self { cloud, adapter, books, _folder: folder, config }
    }

    /// The broker's private key file.
    pub(super) fn login_key(&self) -> &std::path::Path {
        self.config.ssh.key.as_deref().unwrap()
    }

    fn adapter_on(cloud: &Arc<FakeCloud>, config: &Config) -> Ec2Adapter {
        let shared: Arc<dyn Cloud> = cloud.clone();
        Ec2Adapter::new("spot".into(), config.clone(), &Accounts::of(move |_| shared.clone())).unwrap()
    }

    /// Restarts the broker with an empty memory.
    pub(super) fn restart(&mut self) {
        self.adapter = Self::adapter_on(&self.cloud, &self.config);
        self.adapter.account().attend(self.books.clone());
    }

    /// Restarts the broker with other settings.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.restart();
    }

    pub(super) fn pool(&self) -> &Pool {
        self.adapter.pool()
    }

    /// Provisions until an instance is launched. The next steps need a real host.
    pub(super) async fn launch(&self, resource: &str, notes: &Notes) -> Result<Host, Failure> {
        let job = job(resource, notes.last());
        tokio::select! {
            made = provision::provision(self.pool(), &job, notes) => Err(made.expect_err("nothing listens there")),
            () = notes.launched.notified() => {
                Ok(notes.note().and_then(|note| note.host().cloned()).expect("a host"))
            }
            // The clock is stopped, so a missing record ends the test at once.
            () = tokio::time::sleep(Duration::from_secs(7200)) => panic!("no record of a launch of {resource}"),
        }
    }

    /// Launches a host, and adds its row as a serving resource.
    pub(super) async fn serving(&self, resource: &str) -> Host {
        let host = self.launch(resource, &Notes::default()).await.expect("launch");
        let note = Record::Ready { attempt: 1, host: host.clone(), ssh: String::new() };
        self.enter(resource, &note, Phase::Serving);
        host
    }

    pub(super) fn enter(&self, resource: &str, note: &Record, phase: Phase) {
        let mut rows = self.books.rows.lock().unwrap();
        rows.retain(|row| row.resource != resource);
        let (pool, resource) = ("spot".to_string(), resource.to_string());
        rows.push(Row { pool, resource, handle: Some(note.text().unwrap()), phase });
    }
}
