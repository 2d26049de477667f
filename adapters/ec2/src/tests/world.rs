//! An adapter on an account in memory, and a broker that writes down what it hears.

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

/// A broker that has these books.
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

    /// What was told since the last time: resource, kind, source.
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
    /// Nothing listens at the addresses of its instances, and they are given up after a minute.
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

    /// The file of the key that the broker logs in with.
    pub(super) fn login_key(&self) -> &std::path::Path {
        self.config.ssh.key.as_deref().unwrap()
    }

    fn adapter_on(cloud: &Arc<FakeCloud>, config: &Config) -> Ec2Adapter {
        let shared: Arc<dyn Cloud> = cloud.clone();
        Ec2Adapter::new("spot".into(), config.clone(), &Accounts::of(move |_| shared.clone())).unwrap()
    }

    /// The broker dies and starts again: what was in memory is gone.
    pub(super) fn restart(&mut self) {
        self.adapter = Self::adapter_on(&self.cloud, &self.config);
        self.adapter.account().attend(self.books.clone());
    }

    /// The broker starts again with other settings.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.restart();
    }

    pub(super) fn pool(&self) -> &Pool {
        self.adapter.pool()
    }

    /// Goes on until an instance is launched; what comes then needs a real host.
    pub(super) async fn launch(&self, resource: &str, notes: &Notes) -> Result<Host, Failure> {
        let job = job(resource, notes.last());
        tokio::select! {
            made = provision::provision(self.pool(), &job, notes) => Err(made.expect_err("nothing listens there")),
            () = notes.launched.notified() => {
                Ok(notes.note().and_then(|note| note.host().cloned()).expect("a host"))
            }
            // Of the stopped clock: without it, what is not written down would be waited for for ever.
            () = tokio::time::sleep(Duration::from_secs(7200)) => panic!("no launch of {resource} was written down"),
        }
    }

    /// A host that serves, as the broker has it in its books.
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
