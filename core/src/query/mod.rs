//! Answers about the state, for people.

mod census;
mod explain;
mod line;
mod places;
mod tenants;
mod view;

pub use census::{Census, PoolCensus, SlotCensus, StateCensus};
pub use view::{SeenResource, View};
