//! The rows, their indices, and what goes out next.

pub(crate) mod intern;
pub(crate) mod outbox;
pub(crate) mod queue;
pub(crate) mod slots;
pub(crate) mod tables;
pub(crate) mod timers;
