//! The queue that EventBridge fills: received all the time, told to the broker, deleted when what it changed is durable.
//!
//! The queue gets the notices of the whole account and region, since rules can not filter by tag; what is none of ours is
//! deleted and counted. While a launch is under way an id that nobody knows may be the one that it is about to tell us:
//! such a message is left, and comes back when its visibility runs out.

use crate::buckets::jitter;
use crate::cloud::{Message, Which};
use crate::hub::{Hub, now_ms};
use crate::notices::{Said, Signal, SignalKind, read};
use std::sync::atomic::Ordering;
use std::time::Duration;
use wharfinger_adapter::{Failure, NoticeKind};

/// With a visibility of 30 s that is ten minutes; the queue forgets after five.
const RECEIVED_MAX: u32 = 20;

/// A recommendation counts for so long.
const RISK_FOR: Duration = Duration::from_secs(1800);

/// Source names; each takes back only its own word.
const SPOT: &str = "sqs";
const REBALANCE: &str = "sqs rebalance";
const HEALTH: &str = "sqs health";

/// Receives once and handles what comes. `Err`: the queue could not be asked, in words.
pub(crate) async fn receive(hub: &std::sync::Arc<Hub>, queue: &str) -> Result<(), String> {
    let messages = hub.cloud.receive(queue).await.map_err(|error| error.to_string())?;
    if messages.is_empty() {
        return Ok(());
    }
    let handled = futures::future::join_all(messages.iter().map(|message| handle(hub, message))).await;
    let done: Vec<String> =
        messages.into_iter().zip(handled).filter(|(_, done)| *done).map(|(message, _)| message.receipt).collect();
    if !done.is_empty()
        && let Err(error) = hub.cloud.delete_messages(queue, &done).await
    {
        // They come again, and are no news then.
        tracing::debug!("messages that were heard can not be deleted: {error}");
    }
    Ok(())
}

/// True: it may be deleted.
async fn handle(hub: &std::sync::Arc<Hub>, message: &Message) -> bool {
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
            Ok(true) => {}
            Ok(false) => {
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

/// Tells the broker. False: the instance is nobody's.
pub(crate) async fn deliver(hub: &std::sync::Arc<Hub>, signal: &Signal) -> Result<bool, Failure> {
    let Signal { instance, kind, detail } = signal;
    if hub.owner(instance).is_none() {
        // After a restart the books know it before any host was asked for anything.
        hub.learn().await?;
        if hub.owner(instance).is_none() {
            return Ok(false);
        }
    }
    let tell = async |kind, source| hub.tell(instance, kind, source, detail.clone()).await;
    match kind {
        SignalKind::Interruption { at_unix_ms } => {
            hub.interrupted(instance);
            tell(NoticeKind::Interruption { at_unix_ms: *at_unix_ms }, SPOT).await
        }
        SignalKind::Rebalance => {
            let told = tell(NoticeKind::AtRisk, REBALANCE).await?;
            let (hub, instance) = (std::sync::Arc::downgrade(hub), instance.clone());
            tokio::spawn(async move {
                tokio::time::sleep(RISK_FOR).await;
                if let Some(hub) = hub.upgrade() {
                    let text = "a recommendation that nothing followed for half an hour".to_string();
                    let _ = hub.tell(&instance, NoticeKind::Cancelled, REBALANCE, text).await;
                }
            });
            Ok(told)
        }
        SignalKind::Maintenance { at_unix_ms } => {
            tell(NoticeKind::Maintenance { at_unix_ms: *at_unix_ms }, HEALTH).await
        }
        SignalKind::MaintenanceOver => tell(NoticeKind::Cancelled, HEALTH).await,
        SignalKind::State(state) => {
            if !state.is_over() {
                return Ok(true);
            }
            look_again(hub, instance);
            tell(NoticeKind::Gone, SPOT).await
        }
    }
}

/// Why it ended is in the list, for the weather and for those who ask; nobody waits for it.
fn look_again(hub: &std::sync::Arc<Hub>, instance: &str) {
    let (hub, instance) = (std::sync::Arc::downgrade(hub), instance.to_string());
    tokio::spawn(async move {
        let Some(hub) = hub.upgrade() else { return };
        if let Ok(found) = hub.all_instances(&Which::Ids(vec![instance])).await {
            found.into_iter().for_each(|instance| hub.saw(instance));
        }
    });
}

/// Receives for ever, or until nobody needs it. A queue that is away is asked again, more and more seldom.
pub(crate) async fn run(hub: std::sync::Weak<Hub>) {
    let mut failures = 0;
    loop {
        let Some(own) = hub.upgrade() else { return };
        let Some(queue) = own.queue.clone() else { return };
        let said = receive(&own, &queue).await;
        drop(own);
        match said {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!("the queue of notices answers again");
                }
                failures = 0;
            }
            Err(why) => {
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
