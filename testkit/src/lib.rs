//! Needs of the tests: programs, privileges, and a lane of their own among the tests that run beside them.

mod cgroup;
mod lane;
mod need;
mod replay;

pub use cgroup::cgroup;
pub use lane::lane;
pub use need::{Need, need};
pub use replay::replay;
