//! The broker's treatment of a copy that may be spoilt, and the invariants of every tree that it hands out.

use super::odd_rows::NEEDS_FAKETIME;
use super::rows::{Ends, Row, script};
use super::{World, sh};
use wharfinger_adapter::{
    Adapter, Blame, CleanJob, Command, EndedHow, Failure, HolderWork, Prepared, ProvisionJob, Verdict,
};
use wharfinger_testkit::{Need, need};

/// When a holder spoils its copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    /// Then it is released, and its slot is cleaned before the next lease.
    Released,
    /// Something kept the slot from being cleaned: the next lease meets it as it was left.
    Left,
}

impl World {
    /// Runs a script in the tree, on the copy's host and as its user.
    pub(crate) async fn spoil_on_host(&self, script: &str) -> String {
        let head = format!(
            "set -eu; export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a \
             GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org\n\
             FLAG='{}'; ORIGIN='{}'; cd '{}'\n",
            self.flag().display(),
            self.origin.dir.display(),
            self.tree().display()
        );
        let shell = self.job.parent.as_ref().unwrap().shell.clone();
        let output = shell.run(Command::new(["/bin/sh", "-c", &format!("{head}{script}")])).await.unwrap();
        assert!(output.exit.success(), "{script}\n{}\n{}", output.text(), output.complaint());
        output.text()
    }

    /// Another number for the next operation.
    pub(crate) fn next_op(&mut self) {
        self.job.op += 1;
    }

    /// Removes the copy as far as that goes, and makes another one.
    pub(crate) async fn recycle(&mut self) {
        // A copy that cannot be removed is an orphan: its removal is tried again later, and no request waits for it.
        let _ = self.adapter.destroy(&self.job).await;
        self.next_op();
        self.job.resource =
            format!("{}_{}", self.job.resource.split('_').take(2).collect::<Vec<_>>().join("_"), self.job.op);
        self.job.handle = None;
        let made = self.adapter.provision(&ProvisionJob { resource: self.job.clone(), attempt: 0 }).await.unwrap();
        self.job.handle = Some(made.handle);
    }

    /// The copy failed: check it, mend it or make another. Says whether it is another.
    pub(crate) async fn doubt(&mut self, row: &str, failure: &Failure) -> bool {
        assert_eq!(failure.blame, Blame::Resource, "{row}: {failure:?}");
        self.next_op();
        let verdict = self.check().await;
        let mended = match &verdict {
            Verdict::Mangled { repairable: true, .. } => match self.repair().await {
                Ok(()) => {
                    assert_eq!(self.check().await, Verdict::Healthy, "{row}: {failure:?}");
                    true
                }
                Err(failure) => {
                    assert_eq!(failure.blame, Blame::Resource, "{row}: {failure:?}");
                    false
                }
            },
            Verdict::Mangled { .. } | Verdict::Gone { .. } => false,
            // A check that finds nothing would hand the copy out again and again.
            Verdict::Healthy | Verdict::Unreachable { .. } => {
                panic!("{row}: after {failure:?} the check says {verdict:?}")
            }
        };
        if !mended {
            self.recycle().await;
        }
        !mended
    }

    /// Ends a lease as the broker does.
    pub(crate) async fn release(&mut self, row: &str, work: HolderWork) {
        let job = CleanJob { resource: self.job.clone(), work, ended: EndedHow::Ok };
        if let Err(failure) = self.adapter.clean(&job).await {
            self.doubt(row, &failure).await;
        }
    }

    /// Prepares, and mends the copy until that works.
    pub(crate) async fn serve(&mut self, row: &str, work: HolderWork) -> (Prepared, Ends) {
        let mut ends = Ends::Mended;
        for _ in 0..3 {
            let failure = match self.prepare_for(work.clone()).await {
                Ok(prepared) => return (prepared, ends),
                Err(failure) => failure,
            };
            let another = self.doubt(row, &failure).await;
            ends = if another { Ends::Recycled(failure.reason) } else { Ends::Repaired(failure.reason) };
        }
        panic!("{row}: three tries were not enough, the last ended with {ends:?}");
    }

    /// That what was handed out is this commit and nothing else: files, repository, configuration, objects.
    pub(crate) fn assert_pure(&self, row: &str, prepared: &Prepared, name: &str, kept: &[&str]) {
        assert!(!self.flag().exists(), "{row}: the attack ran");
        self.assert_is(prepared, name, kept);
        let config = std::fs::read_to_string(self.tree().join(".git/config")).unwrap();
        let url = format!("[remote \"origin\"]\n\turl = \"{}\"\n", self.origin.url());
        assert!(config.contains(&url) && config.lines().count() < 20, "{row}: {config}");
        let more = sh(
            &self.tree(),
            "ls -A .git/hooks .git/info | grep -v : || :; ls -A .git | grep -vxE 'HEAD|config|hooks|info|index|objects|refs|packed-refs|logs|ORIG_HEAD' || :",
        );
        assert_eq!(more, "", "{row}");
        let fsck = sh(&self.tree(), "git fsck --full --no-dangling --no-reflogs 2>&1 || echo BROKEN");
        assert!(!fsck.contains("BROKEN"), "{row}: {fsck}");
        assert!(!self.flag().exists(), "{row}: the attack ran later");
    }

    /// Plays one row after the other on the same copy: a hard life, and each row must end well for the next to begin.
    pub(crate) async fn play(&mut self, rows: &[Row], then: Then) {
        let only = std::env::var("WHARFINGER_ROW").unwrap_or_default();
        for row in rows.iter().filter(|row| row.0.contains(&only)) {
            let (name, _, ends) = row;
            let faketime = || std::path::Path::new("/usr/bin/faketime").exists().then_some(());
            if *name == NEEDS_FAKETIME && need(Need::Faketime, faketime()).is_none() {
                continue;
            }
            let begun = tokio::time::Instant::now();
            let work = self.work(&[("tag", "v1")]);
            self.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("before {name}: {failure:?}"));
            self.spoil_on_host(&script(row)).await;
            let spoilt = begun.elapsed();
            if then == Then::Released {
                self.release(name, work).await;
            }
            let work = self.work(&[]);
            let (prepared, found) = self.serve(name, work).await;
            println!("{name}: {found:?} ({spoilt:.1?}, {:.1?})", begun.elapsed() - spoilt);
            self.assert_pure(name, &prepared, "main", &[]);
            if then == Then::Left {
                assert_eq!(found, *ends, "{name}");
            }
        }
    }
}
