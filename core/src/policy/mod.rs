//! Decisions over the state.

pub(crate) mod brake;
