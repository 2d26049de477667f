//! The API, package `wharfinger.v1`: its messages and its services, generated from `proto/`.
//!
//! The generated code is checked in, so that users of this crate need no build script and no protoc. A test compares it with
//! `proto/`.

#![allow(clippy::all, clippy::cast_lossless, unused_qualifications, reason = "generated code")]

include!("pb/generated.rs");

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

/// The descriptors of the API, for reflection: an encoded `google.protobuf.FileDescriptorSet`.
#[cfg(feature = "server")]
pub const DESCRIPTORS: &[u8] = include_bytes!("pb/descriptors.binpb");
