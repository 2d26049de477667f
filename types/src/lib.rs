//! The types that the lease core and the adapters share. Each has one definition, here.
//!
//! The crate is `no_std` without dependencies, like the core above it. The core and the adapters' contract re-export
//! its types under their own names: `wharfinger_core::Blame` and `wharfinger_adapter::Blame` are the same type.
//!
//! Two types have a parameter, because the sides differ in one point. [`NoticeKind`] carries a time: adapters report
//! [`WallTime`], and the core decides by its own time. [`Prepared`] carries texts: adapters answer with owned strings, and
//! the core stores shared ones.
#![no_std]

extern crate alloc;

mod blame;
mod id;
mod notice;
mod prepared;
mod traits;
mod verdict;

pub use blame::Blame;
pub use id::{GroupId, IdError, LeaseId, ResourceId, SessionId, mint};
pub use notice::{NoticeKind, WallTime};
pub use prepared::Prepared;
pub use traits::Traits;
pub use verdict::Verdict;
