//! Receives the messages of the notice queue and delivers them to the broker. A message is deleted when its change is durable.
//!
//! The queue has the notices of the whole account and region, since rules cannot filter by tag. Messages about other instances are deleted
//! and counted. While a launch is under way, an unknown instance may be its own: the message stays, and the queue delivers it again
//! after its visibility timeout.

use crate::account::Account;
use crate::backoff::{Backoff, jitter};
use crate::broker::Phase;
use crate::clock::now_ms;
use crate::cloud::{Hook, Message, Which};
use crate::notices::{Event, Signal, SignalKind, read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use wharfinger_adapter::{Failure, NoticeKind, WallTime};

/// Maximum number of deliveries of a message that cannot be handled. With a visibility of 30 s they take ten minutes; the queue
/// of the templates in docs/ec2 keeps messages for five.
const RECEIVED_MAX: u32 = 20;

/// Time after which a recommendation without an interruption is cancelled.
const RISK_FOR: Duration = Duration::from_secs(1800);

/// Source of the notices of lifecycle hooks.
const HOOK: &str = "sqs hook";

/// Sources of notices. A source cancels only its own notices.
const SPOT: &str = "sqs";
const REBALANCE: &str = "sqs rebalance";
const HEALTH: &str = "sqs health";

/// The pause after the queue did not answer.
const RECEIVE_PAUSE: Backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(32) };

/// Maximum number of batches that are handled while the next one is received.
const AT_ONCE: usize = 4;

/// Receives once and handles the messages. `Err`: the text of the queue's error.
#[cfg(test)]
pub(crate) async fn receive(account: &Arc<Account>, queue: &str) -> Result<(), String> {
    let messages = account.cloud.receive(queue).await.map_err(|error| error.to_string())?;
    hear(account, queue, messages).await;
    Ok(())
}

/// Handles messages, and deletes those that are done.
async fn hear(account: &Arc<Account>, queue: &str, messages: Vec<Message>) {
    let handled = futures::future::join_all(messages.iter().map(|message| handle(account, message))).await;
    let done: Vec<String> =
        messages.into_iter().zip(handled).filter(|(_, done)| *done).map(|(message, _)| message.receipt).collect();
    if !done.is_empty()
        && let Err(error) = account.cloud.delete_messages(queue, &done).await
    {
        // The queue delivers them again, which changes nothing.
        tracing::debug!("cannot delete handled messages: {error}");
    }
}

/// Handles one message. True: it can be deleted.
async fn handle(account: &Arc<Account>, message: &Message) -> bool {
    let mut signals = Vec::new();
    let (mut readable, is_first) = (false, message.received <= 1);
    for event in read(&message.body, now_ms()) {
        match event {
            Event::Signals(found) => {
                readable = true;
                signals.extend(found);
            }
            Event::Ignored => {
                readable = true;
                account.counters.ignored.fetch_add(1, Ordering::Relaxed);
            }
            Event::Unconfirmed { topic } if is_first => {
                account.counters.poison.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    "SNS topic {topic} waits until its subscription to the queue of notices is confirmed; subscribe the queue from the account that owns it (`aws sns subscribe --protocol sqs`), which confirms it"
                );
            }
            Event::Unreadable { why, excerpt } if is_first => {
                account.counters.poison.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    "the queue of notices has an event that cannot be parsed: {why}; it begins {excerpt:?}; send only events of EC2, AWS Health and Auto Scaling to the queue"
                );
            }
            Event::Unconfirmed { .. } | Event::Unreadable { .. } => {}
        }
    }
    // The message stays for a person or a dead-letter queue.
    if !readable {
        return message.received >= RECEIVED_MAX;
    }
    let mut done = true;
    for signal in signals {
        match deliver(account, &signal).await {
            Ok(Heard::Done) => {}
            // The queue delivers the message again after its visibility timeout.
            Ok(Heard::Later) => done = false,
            Ok(Heard::Strange) => {
                if account.is_launching() && message.received < RECEIVED_MAX {
                    done = false;
                } else {
                    account.counters.foreign.fetch_add(1, Ordering::Relaxed);
                }
            }
            // The broker recovers. The queue delivers the message again.
            Err(failure) => {
                tracing::debug!("a notice stays in the queue: {failure}");
                done = false;
            }
        }
    }
    done
}

/// Result of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The broker has the notice, and nothing is left to do.
    Done,
    /// The broker has the notice, and something is left to do.
    Later,
    /// The instance has no owner.
    Strange,
}

/// Delivers a signal to the broker.
pub(crate) async fn deliver(account: &Arc<Account>, signal: &Signal) -> Result<Heard, Failure> {
    let Signal { instance, kind, detail } = signal;
    if account.owner(instance).is_none() {
        // After a restart the broker's rows have the owner.
        account.learn().await?;
        if account.owner(instance).is_none() && !account.is_hooked(instance) {
            return Ok(Heard::Strange);
        }
    }
    let tell = async |kind, source| {
        account
            .tell(instance, kind, source, detail.clone())
            .await
            .map(|ours| if ours { Heard::Done } else { Heard::Strange })
    };
    match kind {
        SignalKind::Interruption { at_unix_ms } => {
            account.interrupted(instance);
            tell(NoticeKind::Interruption(WallTime(*at_unix_ms)), SPOT).await
        }
        SignalKind::Rebalance => {
            let result = tell(NoticeKind::AtRisk, REBALANCE).await?;
            let (account, instance) = (Arc::downgrade(account), instance.clone());
            // Ends after `RISK_FOR`.
            tokio::spawn(async move {
                tokio::time::sleep(RISK_FOR).await;
                if let Some(account) = account.upgrade() {
                    let text = "no interruption followed the recommendation within half an hour".to_string();
                    let _ = account.tell(&instance, NoticeKind::Cancelled, REBALANCE, text).await;
                }
            });
            Ok(result)
        }
        SignalKind::Maintenance { at_unix_ms } => tell(NoticeKind::Maintenance(WallTime(*at_unix_ms)), HEALTH).await,
        SignalKind::MaintenanceOver => tell(NoticeKind::Cancelled, HEALTH).await,
        SignalKind::State(state) => {
            if !state.is_over() {
                return Ok(Heard::Done);
            }
            look_again(account, instance);
            tell(NoticeKind::Gone, SPOT).await
        }
        SignalKind::Hook { hook, at_unix_ms } => {
            account.hooked(instance, true);
            tell(NoticeKind::Interruption(WallTime(*at_unix_ms)), HOOK).await?;
            hooked(account, hook, *at_unix_ms).await
        }
    }
}

/// Completes the hook when the host serves no lease, or at the announced time. Until then the message stays in the queue, so that a new
/// broker finds it.
async fn hooked(account: &Arc<Account>, hook: &Hook, at_unix_ms: i64) -> Result<Heard, Failure> {
    let serves = account.rows().await?.iter().any(|(row, note)| {
        row.phase == Phase::Serving && note.host().is_some_and(|host| host.instance == hook.instance)
    });
    if serves && now_ms() < at_unix_ms {
        return Ok(Heard::Later);
    }
    if let Err(error) = account.cloud.complete_hook(hook).await {
        let Hook { group, name, instance, .. } = hook;
        tracing::warn!("cannot complete hook {name} of group {group} for {instance}: {error}");
        return Ok(Heard::Later);
    }
    account.hooked(&hook.instance, false);
    Ok(Heard::Done)
}

/// Lists an ended instance for its state reason, without a wait.
fn look_again(account: &Arc<Account>, instance: &str) {
    let (account, instance) = (Arc::downgrade(account), instance.to_string());
    // Ends with one call.
    tokio::spawn(async move {
        let Some(account) = account.upgrade() else { return };
        if let Ok(found) = account.all_instances(&Which::Ids(vec![instance])).await {
            found.into_iter().for_each(|instance| account.saw(instance));
        }
    });
}

/// Receives until the account is dropped. Pauses grow while the queue does not answer.
pub(crate) async fn run(account: Weak<Account>) {
    let mut failures: u32 = 0;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Some(own) = account.upgrade() else { return };
        let Some(queue) = own.queue.clone() else { return };
        match own.cloud.receive(&queue).await.map_err(|error| error.to_string()) {
            Ok(messages) => {
                // The next messages do not wait for these.
                if !messages.is_empty() {
                    // Ends with its messages.
                    tokio::spawn(async move {
                        hear(&own, &queue, messages).await;
                        drop(place);
                    });
                }
                if failures > 0 {
                    tracing::info!("the notice queue answers again");
                }
                failures = 0;
            }
            Err(why) => {
                drop((own, place));
                failures += 1;
                if failures == 1 {
                    tracing::warn!("the notice queue does not answer: {why}; notices come from the hosts meanwhile");
                }
                let pause = RECEIVE_PAUSE.after(failures);
                tokio::time::sleep(pause / 2 + jitter(pause / 2)).await;
            }
        }
    }
}
