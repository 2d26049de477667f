//! Decisions from the state.

pub(crate) mod brake;
