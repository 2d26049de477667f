//! The one place that asks for the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wharfinger_core::Timestamp;

/// Wall-clock time in milliseconds.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
