//! Acts of an adapter in the outside world, written down before they are done.

use crate::Failure;
use async_trait::async_trait;

/// The durable note of one resource that is being made. There is one note; each replaces the one before.
///
/// It comes back as [`crate::ResourceJob::handle`]: to a repeated [`crate::Adapter::provision`], and to
/// [`crate::Adapter::destroy`] if the resource was never made.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Returns when the note is durable; at most 64 KiB.
    ///
    /// # Errors
    /// It is not durable, or the operation was given up: the act must not be done.
    async fn write(&self, note: &str) -> Result<(), Failure>;
}
