//! The orders of the broker to an adapter, and the facts that come back.

use crate::Shell;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How a holder reaches what it leased: string keys (see [`access`]) to string values.
pub type Access = BTreeMap<String, String>;

/// The keys of [`Access`] that clients understand.
pub mod access {
    /// `local` (commands run on the machine of the broker) or `ssh`.
    pub const TRANSPORT: &str = "transport";
    /// Host name or address.
    pub const ADDRESS: &str = "address";
    /// TCP port of the SSH server.
    pub const PORT: &str = "port";
    /// User to log in as.
    pub const USER: &str = "user";
    /// The host's public key in OpenSSH format; the only one that a client may accept.
    pub const HOST_KEY: &str = "host_key";
    /// Private key for the holder in OpenSSH format, where the pool hands one out. A credential: only a
    /// [`CredentialSource`](crate::CredentialSource) gives it, and only to an answer.
    pub const PRIVATE_KEY: &str = "private_key";
    /// Command whose standard input and output carry the SSH connection, with `%h` and `%p` filled in.
    pub const PROXY_COMMAND: &str = "proxy_command";
    /// Absolute path of the working copy, or of the host's scratch directory.
    pub const PATH: &str = "path";
    /// Absolute path of the directory that holds the working copies of several repositories, each under its name. `path` is
    /// the default one of them.
    pub const ROOT: &str = "root";
    /// Full object name of the commit that is checked out. With several repositories also `commit.<directory>` for each that
    /// is there.
    pub const COMMIT: &str = "commit";
    /// Full object name of the commit that others were merged onto; [`COMMIT`] is the result. Only where there were any.
    pub const BASE: &str = "base";
    /// The address that a working copy was cloned from, as its pool has it.
    pub const REPOSITORY: &str = "repository";
    /// How much of a working copy was there already: `same` (its tree was at this commit), `near` (its objects were in the
    /// copy), `fetched` (they came from the host's mirror, or from the origin), `cold` (first use, or rebuilt).
    pub const WARMTH: &str = "warmth";
    /// How many files the checkout wrote, as a decimal number.
    pub const CHANGED: &str = "changed_files";
    /// The directories that a working copy has of its commit, with commas between; absent if it has all. With several repositories
    /// also `sparse.<directory>`.
    pub const SPARSE: &str = "sparse";
    /// How many commits of history a working copy has from each tip, as a decimal number; absent if it has all.
    pub const DEPTH: &str = "depth";
    /// Absolute path on the host of the file that holds the slot's fencing token; see the module `fence` of `wharfinger-host`.
    pub const FENCE: &str = "fence";
    /// The means that keeps and ends all that a lease starts on the host: `cgroup` or `marks`; see the module `containment` of `wharfinger-host`.
    pub const CONTAINMENT: &str = "containment";
    /// The limits of a slot of the host, as the module `containment` of `wharfinger-host` writes them; absent without any.
    pub const LIMITS: &str = "limits";
    /// How the holder logs in, where it is by a certificate of the broker: `certificate`; see [`crate::login`].
    pub const LOGIN: &str = "login";
    /// Boot id of the host (Linux: /proc/sys/kernel/random/boot_id).
    pub const BOOT_ID: &str = "boot_id";
    /// The keys of credentials. What an adapter answers with, and what the broker stores, has none of them.
    pub const CREDENTIALS: [&str; 1] = [PRIVATE_KEY];
}

/// One resource, as the broker knows it.
#[derive(Clone)]
pub struct ResourceJob {
    /// Name of the pool.
    pub pool: String,
    /// The resource's id (`res_…`): unique for ever, safe in file names.
    pub resource: String,
    /// Number of this operation. The same number again is the same operation, repeated after a crash.
    pub op: u64,
    /// Name of the inventory entry, for pools that have an inventory.
    pub item: Option<String>,
    /// [`Provisioned::handle`] of the resource once it was made; before, the latest note in its
    /// [`crate::Journal`], if anything was.
    pub handle: Option<String>,
    /// The host that it lies on, for children.
    pub parent: Option<ParentHost>,
}

impl fmt::Debug for ResourceJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceJob")
            .field("pool", &self.pool)
            .field("resource", &self.resource)
            .field("op", &self.op)
            .field("item", &self.item)
            .finish_non_exhaustive()
    }
}

/// The host under a child resource.
#[derive(Clone)]
pub struct ParentHost {
    /// The host resource's id.
    pub resource: String,
    /// The id of the lease that the child has on it; empty if it has none.
    pub lease: String,
    /// How to reach it; the child's access is this plus its own.
    pub access: Access,
    /// Runs commands on it.
    pub shell: Arc<dyn Shell>,
}

/// Make a resource.
#[derive(Clone, Debug)]
pub struct ProvisionJob {
    /// The resource to make.
    pub resource: ResourceJob,
    /// How many times this was tried before, for this resource.
    pub attempt: u32,
}

/// A resource that was made and proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// Whatever the adapter needs to find it again and to recognise it (JSON by custom); at most 16 KiB. No secrets.
    pub handle: String,
    /// How a holder reaches it. No secrets: credentials come from the pool's [`crate::CredentialSource`].
    pub access: Access,
    /// Facts found on the way (`arch`, `os`, `cpus`), added to the resource's labels.
    pub labels: BTreeMap<String, String>,
}

/// A holder's wishes for its slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderWork {
    /// The lease's id (`lse_…`).
    pub lease: String,
    /// Slot number on the resource, from 0.
    pub slot: u32,
    /// The fencing token: grows with every lease of this slot.
    pub token: u64,
    /// Parameters of the request, by key; working copies: see the `copies` adapter.
    pub params: BTreeMap<String, String>,
}

/// Make a slot ready for its holder.
#[derive(Clone, Debug)]
pub struct PrepareJob {
    /// The resource with the slot.
    pub resource: ResourceJob,
    /// For whom.
    pub work: HolderWork,
    /// The child (a resource id) that the holder gets, if `resource` is only the host under it. Then the host's adapter
    /// checks that the holder can log in, and the child's own adapter sets the fence.
    pub child: Option<String>,
}

/// A slot that is ready for its holder, with owned texts.
pub type Prepared = wharfinger_types::Prepared<String>;

/// How the former lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedHow {
    /// Released; all was well.
    Ok,
    /// Released; the work failed.
    Failed,
    /// Released; the holder knows that the resource is mangled.
    Tainted,
    /// Released; the work was cut short, or its end is unknown.
    Abandoned,
    /// The holder vanished.
    Expired,
    /// Ended against the holder's will: its processes may still run.
    Broken,
}

/// Make a slot fit for the next holder.
#[derive(Clone, Debug)]
pub struct CleanJob {
    /// The resource with the slot.
    pub resource: ResourceJob,
    /// The lease that ended.
    pub work: HolderWork,
    /// How it ended.
    pub ended: EndedHow,
}
