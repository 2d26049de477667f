//! The cells of the screens: states, ids, times, texts of others, bars and lanes. Each returns markup, and calls no service.
//!
//! A text of others is written as text alone: with its control and direction characters shown, and clipped. It is in no class, no style and
//! no address but percent-encoded.

mod bar;
mod lanes;
mod link;
mod start;
mod state;
mod text;
mod time;

pub(crate) use bar::bar;
pub(crate) use lanes::lanes;
pub(crate) use link::{lease, machine, pool, resource, subject, to};
pub(crate) use start::likely_start;
pub(crate) use state::{lease_state, lease_word, resource_state, resource_word, word_of};
pub(crate) use text::{causes, clipped, counted, others, selector, visible};
pub(crate) use time::{instant, span, time};
