//! Data: rows as they are stored and served, inputs, outputs, and nothing that decides.

pub(crate) mod caller;
pub(crate) mod cause;
pub(crate) mod effect;
pub(crate) mod event;
pub(crate) mod evidence;
pub(crate) mod id;
pub(crate) mod input;
pub(crate) mod label;
pub(crate) mod lease;
pub(crate) mod losses;
pub(crate) mod machine;
pub(crate) mod output;
pub(crate) mod pool;
pub(crate) mod pools;
pub(crate) mod resource;
mod scope;
pub(crate) mod session;
pub(crate) mod stable;
pub(crate) mod tenant;
pub(crate) mod time;
pub(crate) mod view;
