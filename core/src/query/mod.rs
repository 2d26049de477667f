//! Answers about the state, for people.

mod explain;
mod line;
mod places;
mod view;

pub use view::{SeenResource, View};
