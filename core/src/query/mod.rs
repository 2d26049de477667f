//! Answers about the state, for people.

mod explain;
mod places;
