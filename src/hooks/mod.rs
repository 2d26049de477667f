//! Hooks: entries of the audit trail, carried to other programs in order, at least once each.
//!
//! The trail is the outbox: a hook is a reader of it ([`crate::store::TrailReader`]), whose place is stored. Only the server that leads
//! runs hooks. Each hook is a task of its own, sends one message at a time, and reads the next page of the trail only after that. So a
//! receiver that is down holds nothing up and takes no memory; its backlog is the trail itself.

mod alerts;
mod cloudevents;
mod command;
mod filter;
mod http;
mod message;
mod run;
mod settings;
mod severity;
mod signature;
mod slack;

#[cfg(test)]
mod tests;

pub use filter::{Filter, Pattern};
pub use settings::{Endpoint, HookSettings, HookUrl, Source, UrlFault, Way};
pub use severity::Severity;
pub use signature::{Secret, SecretFault};

use crate::engine::Handle;
use crate::links::Links;
use crate::store::{Store, TrailReader};
use crate::telemetry::metrics::Told;
use run::Runner;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharfinger_core::Millis;

/// Prefix of the names of hooks among the readers of the trail.
const READER: &str = "hook/";
/// Maximum time that a stop waits for the places of the hooks to be stored.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The parts of the server that hooks use.
#[derive(Clone)]
pub struct Surroundings {
    /// The engine, for the rows that entries are about.
    pub handle: Handle,
    /// The store with the trail.
    pub store: Arc<dyn Store>,
    /// Meters of deliveries.
    pub told: Told,
    /// The screens of the operator's page, to which messages lead.
    pub links: Links,
    /// Age at which entries of the trail are deleted.
    pub keep_events: Millis,
}

/// Connects to the receiver of a hook, and sends nothing. The text says what answered.
///
/// # Errors
/// The reason why there is no connection.
pub async fn reach(hook: &HookSettings) -> Result<String, String> {
    match hook.way.endpoint() {
        Some(to) => http::reach(to, hook.timeout).await,
        None => Ok("a program, which is not started for this".to_owned()),
    }
}

/// The hooks that run.
#[derive(Default)]
pub struct Hooks {
    settings: Vec<Arc<HookSettings>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Hooks {
    /// Runs the hooks of these settings in place of the present ones. Equal settings change nothing. The place of a hook that is no
    /// longer configured is forgotten: if it comes back, it begins with the entries of that time.
    pub async fn change(&mut self, settings: &[HookSettings], surroundings: &Surroundings) {
        let same = self.settings.len() == settings.len() && self.settings.iter().zip(settings).all(|(a, b)| **a == *b);
        if same && !self.tasks.is_empty() {
            return;
        }
        self.stop().await;
        forget_others(settings, surroundings).await;
        self.stop = CancellationToken::new();
        self.settings = settings.iter().cloned().map(Arc::new).collect();
        for hook in &self.settings {
            // So that a new hook begins here. A store that does not answer now is asked again by the task.
            let _ = TrailReader::open(surroundings.store.clone(), &format!("{READER}{}", hook.name)).await;
            let runner = Runner::new(hook.clone(), surroundings.clone(), self.stop.clone());
            self.tasks.push(tokio::spawn(runner.run()));
        }
    }

    /// Ends the hooks and stores their places.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut self.tasks);
        self.settings.clear();
        let _ = tokio::time::timeout(STOP_PATIENCE, futures::future::join_all(tasks)).await;
    }
}

/// Hooks end with the server that leads, also if it does so by an error.
impl Drop for Hooks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn forget_others(settings: &[HookSettings], surroundings: &Surroundings) {
    let Ok(places) = surroundings.store.trail_places().await else { return };
    for place in places {
        let Some(name) = place.name.strip_prefix(READER) else { continue };
        if settings.iter().any(|hook| hook.name == name) {
            continue;
        }
        surroundings.told.forget(name);
        match surroundings.store.forget_trail_place(&place.name).await {
            Ok(()) => {
                tracing::info!(hook = name, "the hook left the configuration; its place in the trail is forgotten")
            }
            Err(error) => tracing::warn!(hook = name, %error, "the place of a hook that left cannot be forgotten"),
        }
    }
}
