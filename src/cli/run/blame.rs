//! The fault of a failure: the check before a command is blamed, what the broker finds after it, and hosts that are lost
//! or not reached.

use super::attempt::{One, on_machine};
use super::place;
use super::record::End;
use super::signals::Signal;
use super::unsettled::Unsettled;
use super::{Attempt, FINDING, Where};
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::lease::Outcome;
use crate::cli::text;
use crate::client::{ClientError, LeaseGuard, LeaseStatus, Lost, Watched};
use crate::pb;
use wharfinger_adapter::ShellError;

impl One<'_> {
    /// The command failed. If the resource is to blame, it is run again elsewhere.
    pub(super) async fn failed(
        &self,
        guard: LeaseGuard,
        lease: &pb::Lease,
        note: &str,
        end: End,
    ) -> Result<Attempt, Failure> {
        if !self.args.no_check && self.args.outcome_on_failure == Outcome::Failed {
            match self.check(&guard, lease, note).await {
                Blamed::Resource(lost) => {
                    return self.lost(&lost).map(|attempt| match (attempt, end) {
                        (Attempt::Done(End::Blamed(None)), End::Command(exit)) => {
                            Attempt::Done(End::Blamed(Some(exit)))
                        }
                        (attempt, _) => attempt,
                    });
                }
                Blamed::Interrupted(signal) => return Ok(self.interrupted(guard, signal).await),
                Blamed::Command { .. } => {}
            }
        }
        let outcome = self.args.outcome_on_failure;
        let released = self.release_and_hold(guard, outcome.into(), note, self.args.hold_on_failure).await;
        if let Some(hold) = self.args.hold_on_failure.filter(|_| released.is_some()) {
            let (id, hold) = (&lease.resource_id, text::span_text(hold));
            self.context.ui.event(&format!("{id} is kept for {hold}: wharfinger ssh {id} opens a shell in it"));
            self.context.ui.event(&format!("wharfinger recover {id} gives it back before, and deletes what is in it"));
        }
        if let Some(released) = released.filter(|_| outcome == Outcome::Failed) {
            self.tell_finding(&released).await;
        }
        Ok(Attempt::Done(end))
    }

    /// Says whose fault the failure was, if that is known soon: the check after the release tells.
    async fn tell_finding(&self, lease: &pb::Lease) {
        let mut signals = self.signals.clone();
        let found = tokio::select! {
            biased;
            _ = signals.recv() => None,
            found = tokio::time::timeout(FINDING, self.finding(lease)) => found.ok().flatten(),
        };
        let Some(found) = found else { return };
        self.record.found(&lease.id, &found);
        if matches!(found.fault(), pb::finding::Fault::Resource | pb::finding::Fault::Work) {
            self.context.ui.event(&format!("whose fault: {}", text::finding(&found)));
        }
    }

    /// The finding of the check after the release, by the watch of the lease; `None`: there is no such check.
    async fn finding(&self, released: &pb::Lease) -> Option<pb::Finding> {
        let open = |found: &pb::Finding| found.fault() == pb::finding::Fault::Open;
        let told = released.finding.clone()?;
        if !open(&told) {
            return Some(told);
        }
        let request = pb::WatchRequest { lease_ids: vec![released.id.clone()], ..pb::WatchRequest::default() };
        let mut watch = self.client.watch(request);
        loop {
            if let Watched::Lease(lease) = watch.next().await.ok()? {
                let found = lease.finding?;
                if !open(&found) {
                    return Some(found);
                }
            }
        }
    }

    /// Reports the failure, so that the broker checks the resource, and waits for what comes of it.
    async fn check(&self, guard: &LeaseGuard, lease: &pb::Lease, note: &str) -> Blamed {
        let mut signals = self.signals.clone();
        let mut spinner = self.context.ui.spinner();
        spinner.turn(&format!("checking {} before the command is blamed", lease.resource_id));
        let mut status = guard.status();
        let look = async {
            let told = guard.report(&format!("the command ended with {note}")).await?;
            // The doubt and its end are on the lease. Without a doubt there is no check to wait for.
            let mut checked = false;
            if told.doubt.is_some() {
                let settled = |status: &LeaseStatus| match status {
                    LeaseStatus::Active(lease) | LeaseStatus::Doubt(lease) | LeaseStatus::EndsAt(lease, _) => {
                        lease.revision > told.revision && lease.doubt.is_none()
                    }
                    _ => false,
                };
                checked = status.wait_for(settled).await.is_ok();
            }
            Ok::<_, ClientError>(checked)
        };
        let blamed = tokio::select! {
            biased;
            lost = guard.broken() => Blamed::Resource(lost),
            signal = signals.recv() => Blamed::Interrupted(signal),
            looked = tokio::time::timeout(self.args.check_for, look) => match looked {
                Ok(Ok(true)) => Blamed::Command { healthy: Some(lease.resource_id.clone()) },
                Ok(Ok(false) | Err(_)) | Err(_) => Blamed::Command { healthy: None },
            },
        };
        drop(spinner);
        if let Blamed::Command { healthy: Some(id) } = &blamed {
            self.context.ui.event(&format!("{id} was checked and is healthy: the failure is the command's own"));
        }
        blamed
    }

    /// The command could not be started, or its end is not known.
    pub(super) async fn shell_failed(
        &self,
        guard: LeaseGuard,
        lease: &pb::Lease,
        error: ShellError,
    ) -> Result<Attempt, Failure> {
        let text = error.to_string();
        self.record.ended(&lease.id, &text);
        match error {
            ShellError::NotReached(_) | ShellError::WrongHost(_) => {
                Ok(self.unreached(guard, lease, &text, pb::Outcome::Ok).await)
            }
            // It may have run, and may run on. The server decides whether its host is lost.
            ShellError::Unreachable(_) => Ok(self.host_lost(guard, lease, &text).await),
            ShellError::Refused(_) if self.has_the_leases_key(lease) => {
                Ok(self.unreached(guard, lease, &text, pb::Outcome::Ok).await)
            }
            ShellError::Refused(_) => {
                self.release(guard, pb::Outcome::Ok, "the host refused the holder's own key").await;
                Err(place::refused(&error))
            }
            ShellError::Closed(_) => {
                self.release(guard, pb::Outcome::Failed, &text).await;
                Err(Failure::new(Exit::Lost, text)
                    .remedy("raise ChannelTimeout in the host's sshd_config, or let the command print now and then"))
            }
            ShellError::NotStarted(_) | ShellError::File(_) => {
                // No such program, which is the caller's; or no such directory, which is the resource's.
                self.context.ui.warn(&text);
                self.failed(guard, lease, &text, End::NotStarted).await
            }
        }
    }

    /// Whether the key that was refused is the one that came with the lease: then its pool is to be mended, not the caller.
    fn has_the_leases_key(&self, lease: &pb::Lease) -> bool {
        let named = matches!(self.place, Where::There { identity: Some(_), .. });
        lease.has_login() || !named && lease.private_key().is_some()
    }

    /// The host was lost under the command. The lease is kept until the server has decided, and the command runs elsewhere.
    async fn host_lost(&self, guard: LeaseGuard, lease: &pb::Lease, why: &str) -> Attempt {
        let ui = self.context.ui;
        let on = on_machine(lease);
        ui.event(&format!("{on} was lost while the command ran: {why}"));
        if let Err(error) = guard.report_unreached(why).await {
            ui.warn(&format!("the report did not reach the server: {error}"));
        }
        let seen = format!("the host was lost while the command ran: {why}");
        self.record.unreached(&lease.id, &seen);
        let unsettled = Some(Unsettled::keep(ui, self.record.clone(), guard, on, seen));
        Attempt::Elsewhere { avoid: lease.resource_id.clone(), why: why.to_string(), unsettled }
    }

    /// The host could not be reached from here. The server decides whether the host is at fault, and meanwhile the command
    /// runs elsewhere.
    async fn unreached(&self, guard: LeaseGuard, lease: &pb::Lease, why: &str, outcome: pb::Outcome) -> Attempt {
        let ui = self.context.ui;
        ui.event(&format!("not reached from here: {why}"));
        self.record.unreached(&lease.id, &format!("not reached from here: {why}"));
        if let Err(error) = guard.report_unreached(why).await {
            ui.warn(&format!("the report did not reach the server: {error}"));
        }
        self.release(guard, outcome, why).await;
        Attempt::Elsewhere { avoid: lease.resource_id.clone(), why: why.to_string(), unsettled: None }
    }
}

/// The party to blame for a failure.
enum Blamed {
    /// The command; `healthy`: the resource, if its check said so.
    Command {
        healthy: Option<String>,
    },
    Resource(Lost),
    Interrupted(Signal),
}
