//! The clocks of this process. No other module of this crate asks the operating system for the time
//! (docs/adr/0020-clock.md; clippy.toml refuses it).
//!
//! * [`wall`]: the time of day, which can be set. For what people read and for what other machines announce.
//! * [`Moment`]: a clock that only goes forward, also while the machine is suspended. For leads and ages.
//! * [`Clock`]: the time in which the core decides, made of both.

#[cfg(feature = "server")]
mod hybrid;

#[cfg(feature = "server")]
pub use hybrid::Clock;
#[cfg(feature = "server")]
pub(crate) use hybrid::{Moment, TOLERANCE, wall_ms, warnings};
use std::time::SystemTime;

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
