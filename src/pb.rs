//! The generated API, package `wharfinger.v1`. Only `rpc`, `client` and `cli` name it.

#![allow(clippy::all, clippy::cast_lossless, missing_docs, unused_qualifications, reason = "generated code")]

tonic::include_proto!("wharfinger.v1");

mod lease;
mod pairs;

/// Prints no values: a message must not leak a key through a log or a panic.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { private_key } = self;
        let shown = if private_key.is_empty() { "" } else { "(a secret)" };
        f.debug_struct("Credentials").field("private_key", &shown).finish()
    }
}

/// The descriptors of the API, for reflection.
#[cfg(feature = "server")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wharfinger.v1.binpb"));
