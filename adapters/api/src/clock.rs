//! The wall clock, for adapters. No other module of an adapter asks for the time of day: `clippy.toml` refuses it.
//!
//! Adapters need it for what others announce or stamp in wall time. The time in which the broker decides is not theirs.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
