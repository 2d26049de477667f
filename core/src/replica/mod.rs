//! From what is stored to a core, and from what another core has stored to the same state.

pub(crate) mod follow;
pub(crate) mod recover;
