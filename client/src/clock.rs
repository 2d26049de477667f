//! The clock of this crate. No other module reads the time of day (docs/adr/0020-clock.md; clippy.toml refuses it).

use std::time::SystemTime;

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
