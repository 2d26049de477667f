//! The engine: one loop that owns the core. It takes inputs, commits one transaction for each batch, and only then sends replies,
//! events and effects.
//!
//! It names neither tonic nor sqlx. It uses [`crate::store::Store`] and the adapters by their traits.

mod adapter_results;
mod change_feed;
mod effects;
mod follow;
mod handle;
mod leadership;
mod log_changes;
mod observe;
mod run;
#[cfg(test)]
pub(crate) mod testing;
mod trail_log;
mod turn;
mod usual_ttls;
mod watch_hub;

pub use change_feed::changes_after;
pub use effects::{Adapters, EffectLimits};
pub use follow::{FollowConfig, Follower, follow};
pub use handle::{CallId, Configure, Handle, Message, Read, Refreshed, SubmitError};
pub use leadership::{LeaderInfo, Leadership, LeadershipState, Role};
pub(crate) use log_changes::words;
pub use observe::{CallReport, CommitResult, Observed, Observer};
pub use run::{Ended, Engine, EngineConfig, start, take_over};
pub use turn::{Answer, Cycle, Turn, TurnError};
pub use usual_ttls::UsualTtls;
pub use watch_hub::{Filter, Subscription, WatchEvent, WatchHub};
