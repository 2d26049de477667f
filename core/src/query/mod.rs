//! Answers about the state, for people.

mod census;
mod explain;
mod line;
mod places;
mod queue;
mod start;
mod tenants;
mod view;

pub use census::{Census, PoolCensus, SlotCensus, StateCensus};
pub use queue::{QueueClass, QueuePage, QueuePlace, QueueRow};
pub use start::{LikelyStart, NoStart};
pub use view::{SeenResource, View};
