//! The overview of a farm for a person: its faults, their begin, the leases that are hit, and the next step. It asks the services, decides
//! nothing, and draws nothing: the page (`src/http/page`) and `wharfinger top` (`src/cli/top`) draw the same facts.
//!
//! Each question is bounded: nothing grows with the farm.

mod attention;
mod foreign;
mod gather;
mod lanes;
#[cfg(feature = "server")]
mod map;
#[cfg(feature = "server")]
mod servers;
mod source;

pub(crate) use attention::{Concern, Piece, Place, Sign, Struck, attention, roots};
pub(crate) use foreign::{CLIP, clipped, visible};
pub(crate) use gather::{
    LOOK, LOOKED_UP, Now, Queue, QueueClass, ROWS, allowed, found, lease, now, queue, resource, trouble, waiting,
};
#[cfg(test)]
pub(crate) use lanes::Mark;
pub(crate) use lanes::{Lane, Tone, lanes_of};
#[cfg(feature = "server")]
pub(crate) use map::{Domain, Map, map};
#[cfg(feature = "server")]
pub(crate) use servers::{faults as server_faults, is_silent, leader};
pub(crate) use source::{Refused, Source};

use jiff::Timestamp;

/// A moment, if it is one.
pub(crate) fn instant(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
}

/// Seconds of the Unix epoch now.
pub(crate) fn seconds() -> i64 {
    Timestamp::try_from(crate::clock::wall()).map(Timestamp::as_second).unwrap_or_default()
}
