//! This machine as a host: for a first try, for demos, and for small set-ups where the broker runs on the build machine.
//!
//! Commands run as the broker's own user. There is one boot, one disk and no network, so nearly nothing can be lost:
//! the scratch directory of each resource under `root` is what there is to make, to check and to destroy.

mod adapter;
mod config;
mod error;
mod notices;
mod probe;
mod settings;
mod shell;

pub use adapter::LocalAdapter;
pub use config::Config;
pub use settings::defaults;
pub use shell::LocalShell;
