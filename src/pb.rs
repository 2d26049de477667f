//! The generated API, package `wharfinger.v1`. Only `rpc`, `client` and `cli` name it.

#![allow(clippy::all, clippy::cast_lossless, missing_docs, unused_qualifications, reason = "generated code")]

tonic::include_proto!("wharfinger.v1");

/// The descriptors of the API, for reflection.
#[cfg(feature = "server")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wharfinger.v1.binpb"));
