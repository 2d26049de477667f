//! Decisions over the state. They read the core and change nothing: `lifecycle/` carries them out.

pub(crate) mod affinity;
pub(crate) mod autoscale;
pub(crate) mod brake;
pub(crate) mod capacity;
pub(crate) mod deadlock;
pub(crate) mod evidence;
pub(crate) mod fair;
pub(crate) mod isolation;
pub(crate) mod matching;
pub(crate) mod quota;
pub(crate) mod ranking;
pub(crate) mod scheduler;
pub(crate) mod start;
pub(crate) mod turn;
