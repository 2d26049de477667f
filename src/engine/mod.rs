//! The one loop that owns the core: inputs in, one transaction per batch, and only then replies, events and effects.
//!
//! It names neither tonic nor sqlx: it talks to [`crate::store::Store`] and to adapters by their traits.

mod cycle;
mod effects;
mod facts;
mod feed;
mod follow;
mod handle;
mod hub;
mod run;
mod standing;

pub use cycle::{Answer, Cycle, Turn, TurnError};
pub use effects::{Adapters, EffectLimits};
pub use feed::changes_after;
pub use follow::{FollowConfig, Follower, follow};
pub use handle::{CallId, Configure, Handle, Message, Read, Refreshed, SubmitError};
pub use hub::{Filter, Hub, Subscription, Told};
pub use run::{Ended, Engine, EngineConfig, start, take_over};
pub use standing::{Leading, Role, Stand, Standing};
