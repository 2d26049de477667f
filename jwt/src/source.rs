//! The keys of one issuer, fetched in the background by one task.
//!
//! Keys that cannot be fetched again are used for `stale_for`. A token whose key is not known makes the task fetch at once, at
//! most once in 30 seconds, whatever strangers send.

use crate::fetch::Fetch;
use crate::key::{Key, KeySet};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Bounds of the time between two fetches, whatever the server says.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(300)..=Duration::from_secs(3600);
/// The time between two fetches if the server says nothing. Files have it too.
const USUAL: Duration = Duration::from_secs(300);
/// Bounds of the time after a fetch that failed. It doubles.
const AGAIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// Minimum time between two fetches for keys that are not known.
const COOLDOWN: Duration = Duration::from_secs(30);
/// Maximum time that a call waits for a fetch.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time for which a key is known not to be there.
const ABSENT: Duration = Duration::from_secs(60);
/// Maximum number of keys that are known not to be there.
const MAX_ABSENT: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct KeySource {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    stale_for: Duration,
    state: watch::Sender<State>,
    wake: Notify,
    misses: Mutex<Misses>,
}

#[derive(Clone, Debug)]
struct State {
    /// The keys, and the time at which they were fetched.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Grows when the keys change.
    generation: u64,
    /// The number of fetches that have ended.
    ended: u64,
    /// The number of fetches that brought keys.
    succeeded: u64,
    /// Whether a fetch is under way.
    fetching: bool,
    /// The time of the next fetch.
    next: Instant,
}

#[derive(Debug, Default)]
struct Misses {
    /// The last time that a key that is not known made the task fetch, and the number of fetches that had ended then.
    asked: Option<(Instant, u64)>,
    absent: HashMap<String, Instant>,
}

/// The effect of a lookup of a key that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nothing: the key is known not to be there, or the last fetch for such a key was just now.
    Not,
    /// It waits for the fetch that is under way.
    Wait,
    /// It makes the task fetch, and waits.
    Fetch,
}

impl Misses {
    fn judge(&mut self, kid: Option<&str>, state: &State, now: Instant) -> Look {
        if kid.and_then(|kid| self.absent.get(kid)).is_some_and(|since| now - *since < ABSENT) {
            return Look::Not;
        }
        match self.asked {
            // That fetch has not ended.
            Some((_, ended)) if ended == state.ended => Look::Wait,
            Some((at, _)) if now - at < COOLDOWN => {
                if state.fetching {
                    Look::Wait
                } else {
                    Look::Not
                }
            }
            Some(_) | None => {
                self.asked = Some((now, state.ended));
                if state.fetching { Look::Wait } else { Look::Fetch }
            }
        }
    }

    /// Remembers a key that a fetch did not bring.
    fn note(&mut self, kid: Option<&str>, before: &State, after: &State, now: Instant) {
        let (Some(kid), Some((keys, _))) = (kid, &after.keys) else { return };
        if after.succeeded == before.succeeded || keys.get(Some(kid)).is_some() {
            return;
        }
        if self.absent.len() >= MAX_ABSENT {
            self.absent.retain(|_, since| now - *since < ABSENT);
        }
        if self.absent.len() < MAX_ABSENT {
            self.absent.insert(kid.to_owned(), now);
        }
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self { keys: None, generation: 0, ended: 0, succeeded: 0, fetching: true, next: now }
    }

    /// The keys that may be used now.
    fn keys(&self, stale_for: Duration, now: Instant) -> Option<&Arc<KeySet>> {
        self.keys.as_ref().filter(|(_, at)| now - *at <= stale_for).map(|(keys, _)| keys)
    }

    /// Takes the outcome of a fetch. The next one is after this time.
    fn end(&mut self, fetched: Option<KeySet>, wait: Duration, now: Instant) {
        (self.fetching, self.next) = (false, now + wait);
        self.ended += 1;
        if let Some(keys) = fetched {
            let same = self.keys.as_ref().is_some_and(|(known, _)| **known == keys);
            self.generation += u64::from(!same);
            self.succeeded += 1;
            self.keys = Some((Arc::new(keys), now));
        }
    }
}

/// The time until the next fetch.
#[derive(Debug)]
struct Pace(Duration);

impl Pace {
    fn new() -> Self {
        Self(*AGAIN.start())
    }

    /// `said`: the time for which the keys hold, as their server says. `None`: the fetch failed.
    fn wait(&mut self, said: Option<Option<Duration>>) -> Duration {
        let Some(said) = said else {
            let wait = self.0;
            self.0 = (self.0 * 2).min(*AGAIN.end());
            return wait;
        };
        self.0 = *AGAIN.start();
        said.unwrap_or(USUAL).clamp(*EVERY.start(), *EVERY.end())
    }
}

impl KeySource {
    /// Begins to fetch. Must be called within a Tokio runtime.
    pub(crate) fn start(name: Arc<str>, stale_for: Duration, from: Arc<dyn Fetch>) -> Self {
        let shared = Arc::new(Shared {
            name,
            stale_for,
            state: watch::Sender::new(State::new(Instant::now())),
            wake: Notify::new(),
            misses: Mutex::default(),
        });
        let task = tokio::spawn(keep(shared.clone(), from));
        Self { shared, _task: AbortOnDropHandle::new(task) }
    }

    /// The keys and their generation. The error is the number of seconds until the next fetch.
    pub(crate) fn keys(&self) -> Result<(Arc<KeySet>, u64), u32> {
        let state = self.shared.state.borrow();
        let now = Instant::now();
        match state.keys(self.shared.stale_for, now) {
            Some(keys) => Ok((keys.clone(), state.generation)),
            None => {
                let left = state.next.saturating_duration_since(now).as_secs();
                Err(u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1))
            }
        }
    }

    /// Waits until a fetch brings keys without this one. For ever, if the source ends before.
    pub(crate) fn key_gone(&self, key: Arc<Key>) -> impl Future<Output = ()> + Send + use<> {
        let mut news = self.shared.state.subscribe();
        async move {
            let gone = |state: &State| state.keys.as_ref().is_some_and(|(keys, _)| !keys.has(&key));
            if news.wait_for(gone).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Fetches now: an operator has changed a file, or the configuration.
    pub(crate) fn refresh(&self) {
        self.shared.wake.notify_one();
    }

    /// Waits for a fetch that may bring the key that is not known, if there may be one now.
    pub(crate) async fn look_for(&self, kid: Option<&str>) {
        let mut news = self.shared.state.subscribe();
        let before = news.borrow_and_update().clone();
        if before.keys.is_none() {
            if before.fetching {
                let _ = tokio::time::timeout(PATIENCE, news.wait_for(|state| state.ended > before.ended)).await;
            }
            return;
        }
        let look = self.misses().judge(kid, &before, Instant::now());
        match look {
            Look::Not => return,
            Look::Wait => {}
            Look::Fetch => self.shared.wake.notify_one(),
        }
        let ended = news.wait_for(|state| state.ended > before.ended);
        if let Ok(Ok(after)) = tokio::time::timeout(PATIENCE, ended).await.map(|state| state.map(|state| state.clone()))
        {
            self.misses().note(kid, &before, &after, Instant::now());
        }
    }

    fn misses(&self) -> MutexGuard<'_, Misses> {
        self.shared.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep(shared: Arc<Shared>, from: Arc<dyn Fetch>) {
    let mut pace = Pace::new();
    let mut said = String::new();
    loop {
        shared.state.send_modify(|state| state.fetching = true);
        let fetched = from.fetch().await;
        shared.log(fetched.as_ref().map(|fetched| &fetched.keys).map_err(ToString::to_string), &mut said);
        let wait = jittered(pace.wait(fetched.as_ref().ok().map(|fetched| fetched.max_age)));
        let now = Instant::now();
        shared.state.send_modify(|state| state.end(fetched.ok().map(|fetched| fetched.keys), wait, now));
        tokio::select! {
            () = tokio::time::sleep_until(now + wait) => {}
            () = shared.wake.notified() => {}
        }
    }
}

impl Shared {
    /// Logs an outcome that is not the one before.
    fn log(&self, outcome: Result<&KeySet, String>, said: &mut String) {
        let issuer = &*self.name;
        let text = match &outcome {
            Ok(keys) => format!("{} keys; left out: {}", keys.len(), keys.left_out().join("; ")),
            Err(error) => error.clone(),
        };
        if text == *said {
            return;
        }
        match outcome {
            Ok(keys) if keys.left_out().is_empty() => {
                tracing::info!(issuer, keys = keys.len(), "the keys of an issuer are fetched");
            }
            Ok(keys) => {
                let left_out = keys.left_out().join("; ");
                tracing::warn!(issuer, keys = keys.len(), left_out, "keys of an issuer are left out");
            }
            Err(error) => tracing::warn!(issuer, error, "the keys of an issuer cannot be fetched; those before stay"),
        }
        *said = text;
    }
}

/// This time, up to a tenth less: servers that began together fetch at different times.
fn jittered(time: Duration) -> Duration {
    let thousandths = getrandom::u32().unwrap_or(0) % 100;
    time - time * thousandths / 1000
}

#[cfg(test)]
mod tests;
