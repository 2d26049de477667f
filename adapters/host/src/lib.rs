//! The work on a host, by whatever way the host was reached.
//!
//! Each operation is a script of `src/sh` that runs through a [`Shell`](wharfinger_adapter::Shell): on this machine, over SSH, or below a
//! working copy. A script needs a POSIX shell and a few standard programs; nothing is installed for it. Its head has its
//! contract: arguments, input, output, exits, and changes to the host. One without a line on its input reads none.
//!
//! | module | operation |
//! |---|---|
//! | [`check`] | facts of a host, and the verdict on them |
//! | [`fence`] | the token of a slot, and commands that run only while it stands |
//! | [`containment`] | the control group of a slot, and its limits |
//! | [`reaper`] | the end of all that a lease started |
//! | [`sweep`] | the end of all that an earlier resource left |
//! | [`announce`] | the line by which the owner of a host announces its end |
//! | `conformance` | the contract of hosts as tests (feature `conformance`) |
//!
//! docs/adr/0061-host.md has the reasons.

pub mod announce;
pub mod check;
pub mod containment;
pub mod fence;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod mark;
pub mod reaper;
mod refusal;
pub mod sweep;

#[cfg(feature = "conformance")]
pub mod conformance;
