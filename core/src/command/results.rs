//! Answers of adapters. A result with another number than the row belongs to an operation that is over, and is
//! dropped.

use crate::Core;
use crate::command::reject;
use crate::lifecycle::Consequence;
use crate::model::resource::Task;
use crate::{
    Blame, CallFailure, EventKind, FailReason, LeaseId, LeaseState, Made, Millis, Op, Prepared, Reason, Rejection,
    RejectionKind, Reply, ResourceId, Source, Stage, Subject, Texts, Verdict,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// Cleanings that fail this often in a row make the resource be replaced.
const CLEAN_TRIES: u32 = 3;

impl Core {
    /// The call of the adapter that is under way on a resource, if it has this number.
    fn task(&self, id: ResourceId, op: Op) -> Option<Task> {
        self.resource(id)?.state.task().filter(|(_, own)| *own == op).map(|(task, _)| task)
    }

    pub(crate) fn on_noted(&mut self, id: ResourceId, op: Op, handle: Arc<str>) -> Result<Reply, Rejection> {
        if !matches!(self.task(id, op), Some(Task::Provision(_))) {
            let text = format!("operation {} on {id} is over; what it was about to do must not be done", op.0);
            return Err(reject(RejectionKind::Precondition, "OPERATION_OVER", "", text));
        }
        self.note_handle(id, handle);
        Ok(Reply::Done)
    }

    pub(crate) fn on_provisioned(
        &mut self,
        id: ResourceId,
        op: Op,
        result: Result<Made, CallFailure>,
    ) -> Result<Reply, Rejection> {
        if matches!(self.task(id, op), Some(Task::Provision(_))) {
            match result {
                Ok(made) => self.made(id, made),
                Err(failure) => self.not_made(id, &failure),
            }
        }
        Ok(Reply::Done)
    }

    pub(crate) fn on_prepared(
        &mut self,
        id: LeaseId,
        op: Op,
        result: Result<Prepared, CallFailure>,
    ) -> Result<Reply, Rejection> {
        let Some(lease) = self.lease(id).cloned() else { return Ok(Reply::Done) };
        let LeaseState::Preparing { assignment, op: own } = lease.state else { return Ok(Reply::Done) };
        if own != op {
            return Ok(Reply::Done);
        }
        match result {
            Ok(made) => {
                self.set_near(assignment.resource, made.near);
                let Some(row) = self.resource(assignment.resource) else { return Ok(Reply::Done) };
                let is_copy = row.parent.is_some();
                let mut access: Texts = (*row.access).clone();
                access.extend(made.access);
                // The announced end of a host is that of a copy on it too.
                let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resource(host));
                let ends_at = row.ends_at.into_iter().chain(host.and_then(|host| host.ends_at)).min();
                if row.state.stage() == Stage::Doubted {
                    let trouble = String::from("its resource fell into doubt while it was prepared");
                    self.then(Consequence::Requeue { lease: id, trouble });
                    return Ok(Reply::Done);
                }
                self.activate(id, assignment, access, ends_at);
                if is_copy {
                    self.schedule_probe(assignment.resource, false);
                }
                self.own_event(
                    EventKind::LeaseActive,
                    Subject::Lease(id),
                    format!("slot {}, token {}", assignment.slot, assignment.token),
                );
                if lease.spec.group.is_some_and(|group| self.partial_groups().contains(&group)) {
                    // It may hold now what others wait for.
                    self.mark_dirty_for(id);
                }
            }
            Err(failure) => self.prepare_failed(id, assignment.resource, &failure),
        }
        Ok(Reply::Done)
    }

    fn prepare_failed(&mut self, id: LeaseId, resource: ResourceId, failure: &CallFailure) {
        let text = format!("{}: {}", failure.reason, failure.message);
        match failure.blame {
            Blame::Request => {
                let (code, detail) = (failure.reason.clone(), String::from(&*failure.message));
                self.then(Consequence::Fail { lease: id, reason: FailReason::Request, code, detail });
            }
            Blame::Provider | Blame::Configuration => {
                // Neither the work nor the resource is at fault, and another resource would not help.
                let at_least = failure.retry_after.unwrap_or(Millis::ZERO);
                self.then(Consequence::PutOff { lease: id, trouble: text, at_least });
            }
            Blame::Resource | Blame::Bug => {
                let link = self.link(resource, Reason::PrepareFailed, &text, Source::Adapter);
                self.was_unfit(resource);
                self.then(Consequence::Requeue { lease: id, trouble: text });
                self.then(Consequence::doubt(resource, link));
            }
        }
    }

    pub(crate) fn on_cleaned(
        &mut self,
        id: LeaseId,
        op: Op,
        result: Result<(), CallFailure>,
    ) -> Result<Reply, Rejection> {
        let Some(lease) = self.lease(id).cloned() else { return Ok(Reply::Done) };
        let LeaseState::Ended { cleanup: Some(cleanup), .. } = &lease.state else { return Ok(Reply::Done) };
        if cleanup.op != op {
            return Ok(Reply::Done);
        }
        let resource = cleanup.assignment.resource;
        match result {
            Ok(()) => {
                self.cleaning_worked(resource);
                self.then(Consequence::FreeSlot(id));
            }
            Err(failure) => {
                let text = format!("the slot of {id} could not be cleaned: {}: {}", failure.reason, failure.message);
                self.stop_cleaning(id);
                self.own_event(EventKind::ResourceCleanFailed, Subject::Resource(resource), text.as_str());
                let Some(failures) = self.cleaning_failed(resource) else { return Ok(Reply::Done) };
                let link = self.link(resource, Reason::CleanFailed, &text, Source::Adapter);
                if failures >= CLEAN_TRIES {
                    self.then(Consequence::Drain { resource, cause: alloc::vec![link], deadline: None });
                } else {
                    self.then(Consequence::doubt(resource, link));
                    self.then(Consequence::Vacated(resource));
                }
            }
        }
        Ok(Reply::Done)
    }

    pub(crate) fn on_checked(
        &mut self,
        id: ResourceId,
        op: Op,
        result: Result<Verdict, CallFailure>,
    ) -> Result<Reply, Rejection> {
        if matches!(self.task(id, op), Some(Task::Check)) {
            self.checked(id, result);
        }
        Ok(Reply::Done)
    }

    pub(crate) fn on_repaired(
        &mut self,
        id: ResourceId,
        op: Op,
        result: Result<(), CallFailure>,
    ) -> Result<Reply, Rejection> {
        if matches!(self.task(id, op), Some(Task::Repair)) {
            self.repaired(id, result);
        }
        Ok(Reply::Done)
    }

    pub(crate) fn on_destroyed(
        &mut self,
        id: ResourceId,
        op: Op,
        result: Result<(), CallFailure>,
    ) -> Result<Reply, Rejection> {
        if matches!(self.task(id, op), Some(Task::Destroy)) {
            self.destroyed(id, result);
        }
        Ok(Reply::Done)
    }
}
