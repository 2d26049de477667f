//! Answers about the state, for people.

mod explain;
mod places;
mod view;

pub use view::{SeenResource, View};
