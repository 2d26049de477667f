//! The broker's machine as a host: for a first try, for demos, and for small set-ups with the broker on the build machine.
//!
//! Commands run as the broker's user. The adapter makes, checks and destroys the scratch directory of each resource below `root`.
//! The machine has one boot and one disk, and no network is in between, so few failures are possible.

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
