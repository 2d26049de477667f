//! The one loop that owns the core: inputs in, one transaction per batch, and only then replies, events and effects.
//!
//! It names neither tonic nor sqlx: it talks to [`crate::store::Store`] and to adapters by their traits.

mod handle;
mod hub;

pub use handle::{Handle, Message, SubmitError};
pub use hub::{Filter, Hub, Subscription, Told};
