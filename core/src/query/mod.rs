//! Answers about the state, for people.

mod explain;
mod view;

pub use view::{SeenResource, View};
