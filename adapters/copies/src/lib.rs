//! Git working copies on leased hosts.
//!
//! A copy is a child of a host. The adapter gets the host's [`Shell`](wharfinger_adapter::Shell) from the broker. All work is
//! done on the host by `/bin/sh`, `git` (2.36 or newer), `flock` and `timeout`. A copy on its host:
//!
//! ```text
//! <root>/<resource id>/tree/    the working copy of the holder; the adapter adds no file to it
//! <root>/<resource id>/meta/    metadata: marker, config, format, lease, suspect
//! <root>/<resource id>/parts/   metadata of each repository, if the pool has several
//! <root>/mirrors/               one mirror a repository, from which all copies on the host fetch
//! ```
//!
//! # Parameters of a lease
//!
//! At most one of `branch`, `tag`, `ref`, `commit` ([`Wanted`]). Without one the lease gets the default branch. `HEAD` is detached
//! at the commit; [`access::COMMIT`](wharfinger_adapter::access::COMMIT) has its full id. A build that needs a branch creates one.
//! The remote's branches are `refs/remotes/origin/*`. The wanted tag has its name; other tags are missing. Submodules are
//! filled if the pool has `submodules = true`. In a copy with several repositories each has parameters of its own. docs/copies.md
//! is the documentation for users.
//!
//! # Guarantees
//!
//! [`prepare`](wharfinger_adapter::Adapter::prepare) trusts no file that a former holder could write. It reduces `.git` to
//! objects, fetched refs and `HEAD`, and writes the configuration anew. Git runs with the adapter's configuration alone, without
//! hooks and prompts. Then prepare **proves** the tree: it computes every hash again, from the commit through the trees to the
//! bytes of each file. If the proof fails, prepare fetches every object again, once. A tree without a proof is never leased.
//! Clean hashes the files when a lease has ended; the next prepare looks for changes since then (docs/adr/0010).
//!
//! Prepare and clean end every process that carries the mark of the lease. They also end each process whose directory, program or
//! open file lies in the tree or in `meta`: an operator's shell, too, if its directory is there.
//!
//! A process that removed the mark from its environment, and has no directory, program or open file in the copy, is not found.
//! docs/spoilt.md lists the leftovers of builds and their treatment. Holders without mutual trust need separate users or containers.

mod adapter;
mod address;
mod checkout;
mod clean;
mod clone;
mod config;
mod credentials;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod git;
mod inspect;
mod land;
mod lease_file;
mod lfs;
mod merge;
mod mirror;
mod params;
mod parts;
mod prepare;
mod probe;
mod provision;
mod reach;
mod resolve;
mod settings;
mod sparse;
mod submodules;
mod update;
mod validate;

pub use adapter::CopiesAdapter;
pub use config::{Clean, Config, Source};
pub use credentials::Credentials;
pub use land::{Author, LandRequest, LandedFrom, Landing, NotLanded, Push, land};
pub use params::Wanted;
pub use prepare::CA_FILE;
pub use reach::{Asked, ask_remotes};
pub use settings::defaults;
