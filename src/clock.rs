//! The clocks of this process. No other module of this crate reads the time from the operating system
//! (docs/adr/0020-clock.md; clippy.toml refuses it).
//!
//! * [`wall`]: the time of day, which can be set. It serves times that people read and times that other machines announce.
//! * [`Moment`]: a clock that only goes forward, also while the machine is suspended. It serves leads and ages.
//! * [`Clock`]: the time in which the core decides. It is made of both.

#[cfg(feature = "server")]
mod hybrid;

#[cfg(feature = "server")]
pub use hybrid::Clock;
#[cfg(feature = "postgres")]
pub(crate) use hybrid::TOLERANCE;
#[cfg(feature = "server")]
pub(crate) use hybrid::{Moment, wall_ms, warnings};
use std::time::SystemTime;

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
