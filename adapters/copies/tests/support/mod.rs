//! A shell on this machine, origin repositories made by git, and a copy to play its life with.

pub(crate) mod broker;
pub(crate) mod clones;
pub(crate) mod hostile_names;
pub(crate) mod mangles;
pub(crate) mod odd_rows;
pub(crate) mod rows;
mod shell;

pub(crate) use shell::{CutShell, DeadShell, TestShell};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wharfinger_adapter::{
    Access, Adapter, CleanJob, EndedHow, Failure, HolderWork, ParentHost, PrepareJob, Prepared, ProvisionJob,
    ResourceJob, Shell, Verdict, access,
};
use wharfinger_copies::{Clean, Config, CopiesAdapter};

/// Runs a script with git in `dir`; panics with its words if it fails.
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    let prelude = "set -eu; export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
        GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org\n";
    let output = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{prelude}{script}"))
        .current_dir(dir)
        .output()
        .unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&said));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// A bare repository `origin.git` and a clone `work` to push from, with some history.
pub(crate) struct Origin {
    pub(crate) dir: PathBuf,
}

impl Origin {
    pub(crate) fn make(dir: &Path) -> Self {
        sh(
            dir,
            r#"git init -q --bare -b main origin.git
            git init -q -b main work && cd work && git remote add origin ../origin.git
            mkdir -p src/deep && echo one >a.txt && echo code >src/main.c && echo deep >src/deep/x && ln -s a.txt link
            printf '#!/bin/sh\necho hi\n' >run.sh && chmod +x run.sh && printf 'target/\n*.o\n' >.gitignore
            printf 'sp ace\n' >'with space.txt' && printf 'u\n' >'ümlaut'
            git add -A && git commit -qm one && git tag v1 && git tag -a -m 'one' v1a
            echo two >a.txt && echo gone >old.txt && git add -A && git commit -qm two
            git checkout -q -b side && echo side >side.txt && git add -A && git commit -qm side && git checkout -q main
            git checkout -q -b lonely && echo pull >pull.txt && git add -A && git commit -qm pull
            git push -q origin HEAD:refs/pull/7/head && git checkout -q main && git branch -qD lonely
            git push -q origin main side v1 v1a"#,
        );
        Self { dir: dir.to_path_buf() }
    }

    pub(crate) fn url(&self) -> String {
        self.dir.join("origin.git").to_str().unwrap().to_string()
    }

    pub(crate) fn work(&self, script: &str) -> String {
        sh(&self.dir.join("work"), script)
    }

    pub(crate) fn id(&self, name: &str) -> String {
        sh(&self.dir.join("origin.git"), &format!("git rev-parse '{name}^{{commit}}'"))
    }
}

static TOKEN: AtomicU64 = AtomicU64::new(1);

/// One copy, its adapter and its origin.
pub(crate) struct World {
    pub(crate) origin: Origin,
    pub(crate) adapter: CopiesAdapter,
    pub(crate) job: ResourceJob,
    pub(crate) root: PathBuf,
    pub(crate) _dir: tempfile::TempDir,
}

impl World {
    /// A copy that is provisioned.
    pub(crate) async fn new(clean: Clean) -> Self {
        let mut world = Self::bare(|config| config.clean = clean);
        world.provision().await.unwrap();
        world
    }

    /// The origin and an adapter; nothing on the host yet.
    pub(crate) fn bare(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::make(dir.path());
        let host = dir.path().join("host");
        std::fs::create_dir(&host).unwrap();
        let mut config = Config::new(origin.url());
        config.min_free_disk_mb = 1;
        change(&mut config);
        let root = host.join("copies");
        let access = Access::from([(access::PATH.to_string(), host.to_str().unwrap().to_string())]);
        let job = ResourceJob {
            pool: "copies".into(),
            resource: format!(
                "res_{}",
                dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').replace('.', "")
            ),
            // Later than every token, as it is with the broker.
            op: 1 << 40,
            item: None,
            handle: None,
            parent: Some(ParentHost {
                resource: "res_host".into(),
                lease: String::new(),
                access,
                shell: Arc::new(TestShell::default()),
            }),
        };
        Self { origin, adapter: CopiesAdapter::new("copies".into(), config).unwrap(), job, root, _dir: dir }
    }

    pub(crate) async fn provision(&mut self) -> Result<(), Failure> {
        self.job.op += 1;
        let made = self.adapter.provision(&ProvisionJob { resource: self.job.clone(), attempt: 0 }).await?;
        assert_eq!(made.access[access::PATH], self.tree().to_str().unwrap());
        self.job.handle = Some(made.handle);
        Ok(())
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join(&self.job.resource)
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.home().join("tree")
    }

    /// Where an attack leaves its mark, if it succeeds.
    pub(crate) fn flag(&self) -> PathBuf {
        self.origin.dir.join("flag")
    }

    pub(crate) fn spoil(&self, script: &str) -> String {
        sh(&self.tree(), &format!("FLAG='{}'; ORIGIN='{}'\n{script}", self.flag().display(), self.origin.dir.display()))
    }

    pub(crate) fn work(&self, params: &[(&str, &str)]) -> HolderWork {
        let token = TOKEN.fetch_add(1, Ordering::Relaxed);
        let params: BTreeMap<String, String> = params.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        HolderWork { lease: format!("lse_{}_{token}", self.job.resource), slot: 0, token, params }
    }

    pub(crate) async fn prepare(&self, params: &[(&str, &str)]) -> Result<Prepared, Failure> {
        self.prepare_for(self.work(params)).await
    }

    pub(crate) async fn prepare_for(&self, work: HolderWork) -> Result<Prepared, Failure> {
        self.adapter.prepare(&PrepareJob { resource: self.job.clone(), work, child: None }).await
    }

    pub(crate) async fn clean(&self, work: HolderWork) -> Result<(), Failure> {
        self.adapter.clean(&CleanJob { resource: self.job.clone(), work, ended: EndedHow::Ok }).await
    }

    pub(crate) async fn check(&self) -> Verdict {
        self.adapter.check(&self.job).await.unwrap()
    }

    pub(crate) async fn repair(&mut self) -> Result<(), Failure> {
        self.job.op += 1;
        self.adapter.repair(&self.job).await
    }

    /// The steps of the broker: prepare; if the copy is to blame, check, repair, check and prepare again. Says the first
    /// failure's reason.
    pub(crate) async fn prepare_as_the_broker_does(
        &mut self,
        row: &str,
        params: &[(&str, &str)],
    ) -> (Prepared, Option<&'static str>) {
        let failure = match self.prepare(params).await {
            Ok(prepared) => return (prepared, None),
            Err(failure) => failure,
        };
        assert_eq!(failure.blame, wharfinger_adapter::Blame::Resource, "{row}: {failure:?}");
        let verdict = self.check().await;
        assert!(
            matches!(verdict, Verdict::Mangled { repairable: true, .. }),
            "{row}: after {failure:?} the check says {verdict:?}"
        );
        self.repair().await.unwrap_or_else(|again| panic!("{row}: after {failure:?}, {verdict:?}: {again:?}"));
        assert_eq!(self.check().await, Verdict::Healthy, "{row}");
        let prepared = self
            .prepare(params)
            .await
            .unwrap_or_else(|again| panic!("{row}: after {failure:?} and a repair: {again:?}"));
        (prepared, Some(failure.reason))
    }

    /// That the tree is this commit, told without any of the adapter's own means: against an export of the origin.
    pub(crate) fn assert_is(&self, prepared: &Prepared, name: &str, kept: &[&str]) {
        let id = self.origin.id(name);
        assert_eq!(prepared.access[access::COMMIT], id);
        assert_eq!(prepared.access[access::PATH], self.tree().to_str().unwrap());
        let export = tempfile::tempdir().unwrap();
        sh(export.path(), &format!("git -c tar.umask=022 --git-dir='{}' archive {id} | tar x", self.origin.url()));
        let skip: String = kept.iter().map(|name| format!(" --exclude='{name}'")).collect();
        sh(export.path(), &format!("diff -r --no-dereference --exclude=.git{skip} . '{}'", self.tree().display()));
        let modes =
            format!("find . -mindepth 1 -path ./.git -prune -o -printf '%y %m %p\\n' {} | sort", grep_out(kept));
        assert_eq!(sh(&self.tree(), &modes), sh(export.path(), &modes));
        assert_eq!(self.spoil("git rev-parse HEAD"), id);
        if kept.is_empty() {
            assert_eq!(self.spoil("git status --porcelain --ignored"), "");
        }
    }

    /// The same job with another shell under it.
    pub(crate) fn job_on(&self, shell: Arc<dyn Shell>) -> ResourceJob {
        let mut job = self.job.clone();
        job.parent.as_mut().unwrap().shell = shell;
        job
    }
}

fn grep_out(kept: &[&str]) -> String {
    kept.iter().map(|name| format!("| grep -v '/{name}'")).collect()
}
