//! One file a kind of input.

mod admin;
mod configure;
mod impact;
mod lease;
mod notice;
mod quota;
mod release;
mod renew;
mod report;
mod results;
mod session;
mod unreached;

pub use impact::Impact;

use crate::Core;
use crate::{Input, LeaseId, Millis, Rejection, RejectionKind, Reply, ResourceId};
use alloc::format;
use alloc::string::String;

impl Core {
    pub(crate) fn command(&mut self, input: Input) -> Result<Reply, Rejection> {
        match input {
            Input::Lease(request) => self.on_lease(request),
            Input::Release { lease, caller, outcome, note, hold } => {
                self.on_release(lease, &caller, outcome, note, hold)
            }
            Input::Report { lease, caller, note } => self.on_report(lease, &caller, &note),
            Input::Unreached { lease, caller, note } => self.on_unreached(lease, &caller, &note),
            Input::Renew { lease, caller, ttl } => self.on_renew(lease, &caller, ttl).map(Reply::Leases),
            Input::RenewAll { leases, caller, ttl } => Ok(self.on_renew_all(leases, &caller, ttl)),
            Input::OpenSession(request) => self.on_open_session(&request),
            Input::ResumeSession { session, caller } => self.on_resume_session(session, &caller),
            Input::Beat(stream) => self.on_beat(stream),
            Input::StreamEnded(stream) => Ok(self.on_stream_ended(stream)),
            Input::CloseSession { stream, caller } => self.on_close_session(stream, &caller),
            Input::KeepAll { leases, caller, stream } => self.on_keep_all(leases, &caller, stream),
            Input::Admin(request) => self.on_admin(request),
            Input::Noted { resource, op, handle } => self.on_noted(resource, op, handle),
            Input::Provisioned { resource, op, result } => self.on_provisioned(resource, op, result),
            Input::Prepared { lease, op, result } => self.on_prepared(lease, op, result),
            Input::Cleaned { lease, op, result } => self.on_cleaned(lease, op, result),
            Input::Checked { resource, op, result } => self.on_checked(resource, op, result),
            Input::Probed { resource, result } => {
                self.probed(resource, result);
                Ok(Reply::Done)
            }
            Input::Repaired { resource, op, result } => self.on_repaired(resource, op, result),
            Input::Destroyed { resource, op, result } => self.on_destroyed(resource, op, result),
            Input::Notice(notice) => self.on_notice(notice),
            Input::Configure(configuration) => {
                self.configure(configuration);
                Ok(Reply::Done)
            }
            Input::Tick => Ok(Reply::Done),
        }
    }
}

pub(crate) fn reject(kind: RejectionKind, reason: &'static str, field: &str, message: String) -> Rejection {
    Rejection { kind, reason, field: String::from(field), message, retry_after: None }
}

pub(crate) fn unknown_lease(id: LeaseId) -> Rejection {
    let message = format!("no lease {id}: it never was, or it ended so long ago that it is no longer kept");
    reject(RejectionKind::NotFound, "UNKNOWN_LEASE", "lease_id", message)
}

pub(crate) fn unknown_resource(id: ResourceId) -> Rejection {
    let message = format!("no resource {id}: list them with `wharfinger resources`");
    reject(RejectionKind::NotFound, "UNKNOWN_RESOURCE", "resource_id", message)
}

pub(crate) fn retry_in(mut rejection: Rejection, wait: Millis) -> Rejection {
    rejection.retry_after = Some(wait);
    rejection
}
