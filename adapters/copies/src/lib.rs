//! Git working copies on leased hosts.
//!
//! A copy is a child of a host: the broker hands over the host's [`Shell`](wharfinger_adapter::Shell), and all work is
//! done by that host's `/bin/sh`, `git` (2.36 or newer), `flock` and `timeout`. On the host it looks like this:
//!
//! ```text
//! <root>/<resource id>/tree/    what the holder gets; nothing of ours lies in it
//! <root>/<resource id>/meta/    ours: marker, config, format, lease, suspect
//! <root>/<resource id>/parts/   ours: the same for each repository, where there are several
//! <root>/mirrors/               ours: what all copies of a repository take their objects from
//! ```
//!
//! # What a lease may ask for
//!
//! At most one of `branch`, `tag`, `ref`, `commit` ([`Wanted`]); none is the default branch. `HEAD` is always detached at
//! the commit, whose full name is in [`access::COMMIT`](wharfinger_adapter::access::COMMIT): a build that needs a branch
//! makes one. Branches of the remote are there as `refs/remotes/origin/*`, the wanted tag under its name, other tags not.
//! Submodules are filled if the pool says so. Of a copy with several repositories it may ask all of that for each, and which it needs:
//! docs/copies.md has it all for users.
//!
//! # What is promised
//!
//! [`prepare`](wharfinger_adapter::Adapter::prepare) trusts nothing that a former holder could write. `.git` is reduced to
//! objects, fetched refs and `HEAD`; its configuration is written anew; git runs with no configuration but ours, no hooks,
//! no prompts. Then it **proves** the tree: from the commit's name, through the directory listings, to the bytes of each
//! file, every hash is computed again. What cannot be proved is fetched again once, and otherwise never handed out.
//! Files are hashed when a lease has ended; the next prepare looks for what has changed since (docs/adr/0010).
//!
//! When a lease begins and when it ends, every process is ended that carries the lease's mark, or whose directory, program or
//! open file lies in the tree or in meta: an operator's own shell too, if it stands there.
//!
//! What it cannot find: a process of a former holder that has shed the lease's mark from its environment and has neither its
//! directory nor its program nor an open file in the copy. docs/spoilt.md lists what builds may leave and what becomes of it. Hosts whose holders are not trusted need a user, or a container, for each.

mod adapter;
mod address;
mod checkout;
mod clean;
mod config;
mod credentials;
mod error;
mod git;
mod land;
mod lfs;
mod merge;
mod mirror;
mod params;
mod parts;
mod prepare;
mod probe;
mod provision;
mod reach;
mod settings;
mod sparse;
mod submodules;
mod validate;

pub use adapter::CopiesAdapter;
pub use config::{Clean, Config, Source};
pub use credentials::Credentials;
pub use land::{Author, LandRequest, LandedFrom, Landing, NotLanded, Push, land};
pub use params::Wanted;
pub use prepare::CA_FILE;
pub use reach::{Asked, ask_remotes};
pub use settings::defaults;
