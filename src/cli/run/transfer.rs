//! The files of one attempt: how a transfer that was cut short ends the attempt.

use super::Attempt;
use super::attempt::One;
use super::env;
use super::files::{Cut, Staged, Transfer};
use super::place::Place;
use super::record::End;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::client::LeaseGuard;
use crate::pb;
use wharfinger_adapter::ShellError;

/// Files that came, and the reason for those that did not.
pub(super) type Brought = (Staged, Option<String>);

impl One<'_> {
    pub(super) fn transfer<'a>(&self, place: &'a Place, guard: &'a LeaseGuard, lease: &pb::Lease) -> Transfer<'a> {
        let env = env::variables(lease, &self.context.server);
        Transfer { place, guard, env, signals: self.signals.clone() }
    }

    /// Brings files here, beside their place.
    pub(super) async fn fetch(
        &self,
        place: &Place,
        guard: &LeaseGuard,
        lease: &pb::Lease,
        success: bool,
    ) -> Result<Option<Brought>, Cut> {
        let Some(files) = self.files else { return Ok(None) };
        match files.fetch(&self.transfer(place, guard, lease), success).await {
            Err(Cut::Fence(exit)) => match self.not_ours(guard).await {
                Some(lost) => Err(Cut::Lost(lost)),
                None => Err(Cut::There(format!("tar ended with {exit:?}"))),
            },
            other => other,
        }
    }

    /// Gives files their place. Returns the reason for those that have none.
    pub(super) fn place_files(&self, (staged, fault): Brought) -> Option<String> {
        let (paths, left_out) = staged.place();
        self.context.ui.event(&match paths.len() {
            1 => "fetched 1 file".to_string(),
            many => format!("fetched {many} files"),
        });
        let fault = fault.or(left_out);
        self.record.fetched(paths, fault.clone());
        fault
    }

    /// A command that succeeded is no success without its files.
    pub(super) fn not_fetched(&self, why: &str) -> Failure {
        let why = crate::cli::text::one_line(why);
        self.record.fetch_failed(&why);
        Failure::new(Exit::BadData, format!("the command succeeded, and not all files were fetched: {why}"))
            .remedy("name files that are there, in the leased tree; wharfinger run --help has the limits of --fetch")
    }

    /// A transfer of files that ended with its attempt.
    pub(super) async fn cut(&self, guard: LeaseGuard, lease: &pb::Lease, cut: Cut) -> Result<Attempt, Failure> {
        match cut {
            Cut::Lost(lost) => self.lost(&lost),
            Cut::Interrupted(signal) => Ok(self.interrupted(guard, signal).await),
            Cut::Shell(error) => self.shell_failed(guard, lease, error).await,
            Cut::Fence(exit) => {
                self.shell_failed(guard, lease, ShellError::NotStarted(format!("the host ended it with {exit:?}")))
                    .await
            }
            Cut::Here(why) | Cut::There(why) => self.shell_failed(guard, lease, ShellError::File(why)).await,
        }
    }

    /// The files did not get there, and the command was not started.
    pub(super) async fn not_put(&self, guard: LeaseGuard, lease: &pb::Lease, cut: Cut) -> Result<Attempt, Failure> {
        match cut {
            Cut::Here(why) => {
                self.record.ended(&lease.id, &why);
                self.release(guard, pb::Outcome::Ok, "the files could not be sent").await;
                Err(Failure::new(Exit::BadData, format!("--put: {why}")))
            }
            Cut::Fence(exit) => match self.not_ours(&guard).await {
                Some(lost) => self.lost(&lost),
                None => self.cut(guard, lease, Cut::Fence(exit)).await,
            },
            // The host has no tar or no room, or the tree is not writable: a check tells.
            Cut::There(why) => {
                let why = format!("the files did not get there: {why}");
                self.record.ended(&lease.id, &why);
                self.context.ui.warn(&why);
                self.failed(guard, lease, &why, End::NotStarted).await
            }
            cut => self.cut(guard, lease, cut).await,
        }
    }
}
