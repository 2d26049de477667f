//! The contract between the broker and the outside world.
//!
//! An [`Adapter`] makes, checks, repairs and destroys resources of one kind, and reports [`Notice`]s. It knows nothing
//! of leases' queues, of the store or of gRPC: it gets orders and answers with facts. It decides nothing that
//! the broker could decide for all adapters: retries, back-off, what a verdict means.
//!
//! Three rules hold for every call:
//!
//! 1. **Idempotent.** The broker may repeat any call with the same `op` after a crash. The second call finds what the
//!    first one did and goes on from there.
//! 2. **Gone is success for destroy.** What is not there any more needs no clean-up.
//! 3. **Silence is no verdict.** A check that could not be carried out (an API error, a throttle) is an `Err`, never
//!    [`Verdict::Gone`].
//!
//! Dropping the future of a call cancels it; what it started on a host is then killed.
//!
//! The crate `wharfinger-host` does the work on a host: its fence, its checks, the end of processes; and has this contract as tests.

pub mod clock;
mod credentials;
mod failure;
mod job;
mod journal;
pub mod login;
mod notice;
pub mod settings;
mod shell;

pub use credentials::{CredentialSource, Credentials};
pub use failure::{Blame, Failure};
pub use job::{
    Access, CleanJob, EndedHow, HolderWork, ParentHost, PrepareJob, Prepared, ProvisionJob, Provisioned, ResourceJob,
    access,
};
pub use journal::Journal;
pub use notice::{Notice, NoticeKind, NoticeSink, NoticeTarget, WallTime};
pub use shell::{COMMAND_BYTES_MAX, Command, Exit, InputSource, Output, OutputSink, Shell, ShellError, Stream, quote};
pub use wharfinger_types::{IdError, LeaseId, ResourceId, Traits, Verdict};

use async_trait::async_trait;
use std::sync::Arc;

/// Code that knows one kind of resource. One value serves one pool.
#[async_trait]
pub trait Adapter: Send + Sync + 'static {
    /// Abilities of this adapter. Constant over its life.
    fn traits(&self) -> Traits;

    /// Makes the resource, or finds the one that an earlier call with the same `job.resource.op` made, and **proves**
    /// it: reached, identity checked, fit for use. On `Err` nothing is left behind that [`Adapter::destroy`] with the
    /// same resource id would not find.
    async fn provision(&self, job: &ProvisionJob) -> Result<Provisioned, Failure>;

    /// As [`Adapter::provision`], for those who must write down what they are about to do before they do it: a provider that
    /// sells machines is asked only for what stands in the journal. What it says here comes back as the job's handle.
    async fn provision_noted(&self, job: &ProvisionJob, journal: &dyn Journal) -> Result<Provisioned, Failure> {
        let _ = journal;
        self.provision(job).await
    }

    /// Whether [`Adapter::provision`] mostly waits for a machine that a provider starts. Such calls are counted apart from
    /// those that work, so that many boots at once delay nothing. Constant over the adapter's life.
    fn provision_waits(&self) -> bool {
        false
    }

    /// Makes the slot ready for this holder's work (a working copy: checks out the wanted commit), and gives the slot's
    /// fence its token, before anything else is touched. A later token there: `FENCED` ([`Blame::Provider`]).
    ///
    /// [`Blame::Request`] fails the lease and taints nothing; [`Blame::Resource`] sends the lease back to its place in
    /// the queue and puts the resource in doubt.
    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure>;

    /// Ends whatever the former holder left running, and brings the slot into a state that [`Adapter::prepare`] can
    /// start from. The fence goes first, unless it has a later token: then `FENCED`, and nothing is touched. When this returns `Ok` the former holder can do no more harm through this slot.
    async fn clean(&self, job: &CleanJob) -> Result<(), Failure>;

    /// The thorough question: is this the resource that we made, and is it fit to be leased?
    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure>;

    /// The cheap question, asked every few seconds while nothing is wrong. Defaults to [`Adapter::check`].
    async fn probe(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        self.check(job).await
    }

    /// The cheap question by a new login, as holders make it: one of them could not get in. Defaults to [`Adapter::probe`].
    async fn probe_login(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        self.probe(job).await
    }

    /// Tells whether work is on the resource, or on what lies on it: with each preparation and each probe. One that has
    /// work may be looked at more often, and reported by [`NoticeKind::Silent`]. It must not wait, and may forget.
    fn attend(&self, resource: &ResourceJob, held: bool) {
        let _ = (resource, held);
    }

    /// Mends a mangled resource in the smallest step that helps. A check follows, so `Ok` is no proof.
    async fn repair(&self, job: &ResourceJob) -> Result<(), Failure>;

    /// Removes the resource and all that it left. Already gone is `Ok`.
    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure>;

    /// Opens the logins of a lease on a child of this host. The child is prepared, and its lease becomes ACTIVE after this. For
    /// hosts whose holders log in by certificate; others have nothing to open.
    async fn open_logins(&self, logins: &login::ChildLogins) -> Result<(), Failure> {
        let _ = logins;
        Ok(())
    }

    /// Closes the logins of a lease on a child of this host, before the child is cleaned. Already closed is `Ok`.
    async fn close_logins(&self, logins: &login::ChildLogins) -> Result<(), Failure> {
        let _ = logins;
        Ok(())
    }

    /// A way to run commands on this resource. Hosts have one; working copies use their host's.
    async fn shell(&self, job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure>;

    /// Hands the adapter the place to which it reports what the world says unasked. Called once, before any other
    /// call; an adapter that reports nothing keeps the default.
    fn subscribe(&self, sink: NoticeSink) {
        let _ = sink;
    }
}
