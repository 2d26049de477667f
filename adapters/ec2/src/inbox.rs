//! The queue that EventBridge fills: received all the time, told to the broker, deleted when what it changed is durable.
//!
//! The queue gets the notices of the whole account and region, since rules can not filter by tag; what is none of ours is
//! deleted and counted. While a launch is under way an id that nobody knows may be the one that it is about to tell us:
//! such a message is left, and comes back when its visibility runs out.

use crate::buckets::jitter;
use crate::cloud::{Message, Which};
use crate::hub::{Hub, Standing, now_ms};
use crate::notices::{Hook, Said, Signal, SignalKind, read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use wharfinger_adapter::{Failure, NoticeKind, WallTime};

/// With a visibility of 30 s that is ten minutes; the queue forgets after five.
const RECEIVED_MAX: u32 = 20;

/// A recommendation counts for so long.
const RISK_FOR: Duration = Duration::from_secs(1800);

/// The group waits as long as its hook says; its message must not be the one that we forget.
const HOOK: &str = "sqs hook";

/// Source names; each takes back only its own word.
const SPOT: &str = "sqs";
const REBALANCE: &str = "sqs rebalance";
const HEALTH: &str = "sqs health";

/// Batches that are told and deleted at once, while the next one is received.
const AT_ONCE: usize = 4;

/// Receives once and handles what comes. `Err`: the queue could not be asked, in words.
#[cfg(test)]
pub(crate) async fn receive(hub: &Arc<Hub>, queue: &str) -> Result<(), String> {
    let messages = hub.cloud.receive(queue).await.map_err(|error| error.to_string())?;
    hear(hub, queue, messages).await;
    Ok(())
}

/// Tells what came, and deletes what is done.
async fn hear(hub: &Arc<Hub>, queue: &str, messages: Vec<Message>) {
    let handled = futures::future::join_all(messages.iter().map(|message| handle(hub, message))).await;
    let done: Vec<String> =
        messages.into_iter().zip(handled).filter(|(_, done)| *done).map(|(message, _)| message.receipt).collect();
    if !done.is_empty()
        && let Err(error) = hub.cloud.delete_messages(queue, &done).await
    {
        // They come again, and are no news then.
        tracing::debug!("messages that were heard can not be deleted: {error}");
    }
}

/// True: it may be deleted.
async fn handle(hub: &Arc<Hub>, message: &Message) -> bool {
    let signals = match read(&message.body, now_ms()) {
        Said::Signals(signals) => signals,
        Said::Nothing => {
            hub.counters.ignored.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        Said::Unreadable(why) => {
            hub.counters.poison.fetch_add(1, Ordering::Relaxed);
            let begin: String = message.body.chars().take(200).collect();
            tracing::warn!("a message of the queue is deleted unread: {why}; it begins {begin:?}");
            return true;
        }
    };
    let mut done = true;
    for signal in signals {
        match deliver(hub, &signal).await {
            Ok(Heard::Done) => {}
            // It comes again when its visibility runs out.
            Ok(Heard::Later) => done = false,
            Ok(Heard::Strange) => {
                if hub.is_launching() && message.received < RECEIVED_MAX {
                    done = false;
                } else {
                    hub.counters.foreign.fetch_add(1, Ordering::Relaxed);
                }
            }
            // The broker recovers from its store: it is told again.
            Err(failure) => {
                tracing::debug!("a notice is left in the queue: {failure}");
                done = false;
            }
        }
    }
    done
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The broker knows it, and nothing is left to do.
    Done,
    /// The broker knows it, and something is left to do.
    Later,
    /// The instance is nobody's.
    Strange,
}

/// Tells the broker.
pub(crate) async fn deliver(hub: &Arc<Hub>, signal: &Signal) -> Result<Heard, Failure> {
    let Signal { instance, kind, detail } = signal;
    if hub.owner(instance).is_none() {
        // After a restart the books know it before any host was asked for anything.
        hub.learn().await?;
        if hub.owner(instance).is_none() && !hub.is_hooked(instance) {
            return Ok(Heard::Strange);
        }
    }
    let tell = async |kind, source| {
        hub.tell(instance, kind, source, detail.clone())
            .await
            .map(|ours| if ours { Heard::Done } else { Heard::Strange })
    };
    match kind {
        SignalKind::Interruption { at_unix_ms } => {
            hub.interrupted(instance);
            tell(NoticeKind::Interruption(WallTime(*at_unix_ms)), SPOT).await
        }
        SignalKind::Rebalance => {
            let told = tell(NoticeKind::AtRisk, REBALANCE).await?;
            let (hub, instance) = (Arc::downgrade(hub), instance.clone());
            tokio::spawn(async move {
                tokio::time::sleep(RISK_FOR).await;
                if let Some(hub) = hub.upgrade() {
                    let text = "a recommendation that nothing followed for half an hour".to_string();
                    let _ = hub.tell(&instance, NoticeKind::Cancelled, REBALANCE, text).await;
                }
            });
            Ok(told)
        }
        SignalKind::Maintenance { at_unix_ms } => tell(NoticeKind::Maintenance(WallTime(*at_unix_ms)), HEALTH).await,
        SignalKind::MaintenanceOver => tell(NoticeKind::Cancelled, HEALTH).await,
        SignalKind::State(state) => {
            if !state.is_over() {
                return Ok(Heard::Done);
            }
            look_again(hub, instance);
            tell(NoticeKind::Gone, SPOT).await
        }
        SignalKind::Hook { hook, at_unix_ms } => {
            hub.hooked(instance, true);
            tell(NoticeKind::Interruption(WallTime(*at_unix_ms)), HOOK).await?;
            hooked(hub, hook, *at_unix_ms).await
        }
    }
}

/// The group may end it when nobody works there any more, or at the time that the holders were told. Until then its message
/// stays in the queue, so that a broker that starts again finds it.
async fn hooked(hub: &Arc<Hub>, hook: &Hook, at_unix_ms: i64) -> Result<Heard, Failure> {
    let serves = hub.rows().await?.iter().any(|(row, note)| {
        row.standing == Standing::Serving && note.host().is_some_and(|host| host.instance == hook.instance)
    });
    if serves && now_ms() < at_unix_ms {
        return Ok(Heard::Later);
    }
    if let Err(error) = hub.cloud.complete_hook(hook).await {
        let Hook { group, name, instance, .. } = hook;
        tracing::warn!("hook {name} of group {group} can not be told that {instance} may end: {error}");
        return Ok(Heard::Later);
    }
    hub.hooked(&hook.instance, false);
    Ok(Heard::Done)
}

/// Why it ended is in the list, for the weather and for those who ask; nobody waits for it.
fn look_again(hub: &Arc<Hub>, instance: &str) {
    let (hub, instance) = (Arc::downgrade(hub), instance.to_string());
    tokio::spawn(async move {
        let Some(hub) = hub.upgrade() else { return };
        if let Ok(found) = hub.all_instances(&Which::Ids(vec![instance])).await {
            found.into_iter().for_each(|instance| hub.saw(instance));
        }
    });
}

/// Receives for ever, or until nobody needs it. A queue that is away is asked again, more and more seldom.
pub(crate) async fn run(hub: Weak<Hub>) {
    let mut failures = 0;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Some(own) = hub.upgrade() else { return };
        let Some(queue) = own.queue.clone() else { return };
        match own.cloud.receive(&queue).await.map_err(|error| error.to_string()) {
            Ok(messages) => {
                // Whatever comes next does not wait until these are durable and deleted.
                if !messages.is_empty() {
                    tokio::spawn(async move {
                        hear(&own, &queue, messages).await;
                        drop(place);
                    });
                }
                if failures > 0 {
                    tracing::info!("the queue of notices answers again");
                }
                failures = 0;
            }
            Err(why) => {
                drop((own, place));
                failures += 1;
                if failures == 1 {
                    tracing::warn!(
                        "the queue of notices does not answer: {why}; hosts are asked for notices meanwhile"
                    );
                }
                let pause = Duration::from_secs(1 << i32::min(failures, 5).unsigned_abs());
                tokio::time::sleep(pause / 2 + jitter(pause / 2)).await;
            }
        }
    }
}
