//! The task of one hook: it reads the trail, makes messages, and delivers them one after the other.

use super::alerts::{self, Lasting};
use super::http::{Delivery, Headers};
use super::message::{Message, Skipped};
use super::settings::{HookSettings, Way};
use super::signature::Secret;
use super::{READER, Surroundings, cloudevents, command, http, slack};
use crate::backoff::Backoff;
use crate::clock::{Moment, wall_ms};
use crate::engine::Role;
use crate::store::{StoreError, StoredEvent, TrailReader};
use crate::telemetry::metrics::Told;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time after which the trail is read again without a hint.
const POLL: Duration = Duration::from_secs(1);
/// The waits between two attempts to deliver.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Minimum time between two writes of a place to the store: after a delivery, and if entries were only passed over.
const SAVE_AFTER_DELIVERY: Duration = Duration::from_secs(1);
const SAVE_AFTER_PASSING: Duration = Duration::from_secs(10);
/// Number of attempts for a message that the receiver refuses.
const REFUSALS: u32 = 3;
/// Maximum number of entries of one delivery to Alertmanager.
const ALERTS_AT_ONCE: usize = 200;

/// The notes of a hook beside its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Notes {
    #[serde(skip_serializing_if = "Lasting::is_empty")]
    lasting: Lasting,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
}

/// The reason why a task ends or begins again.
enum Stop {
    /// The server stops, the configuration has changed, or another server leads.
    Asked,
    /// The store does not answer.
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The content of one delivery.
enum Parcel {
    Message(Box<Message>),
    Alerts(Vec<serde_json::Value>),
}

/// A delivery's result beyond the attempts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    Skipped,
}

pub(super) struct Runner {
    hook: Arc<HookSettings>,
    around: Surroundings,
    stop: CancellationToken,
    /// Whether the latest attempt failed.
    failing: bool,
    /// Whether the latest message was given up.
    giving_up: bool,
    notes: Notes,
    saved: Moment,
    posted: Moment,
}

impl Runner {
    pub(super) fn new(hook: Arc<HookSettings>, around: Surroundings, stop: CancellationToken) -> Self {
        let (saved, posted) = (Moment::now(), Moment::now());
        Self { hook, around, stop, failing: false, giving_up: false, notes: Notes::default(), saved, posted }
    }

    fn told(&self) -> &Told {
        &self.around.told
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut said = false;
        self.told().known(&self.hook.name);
        loop {
            match self.carry(&mut backoff, &mut said).await {
                Stop::Asked => return,
                Stop::Store(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(hook = self.hook.name, %error, "the trail cannot be read for a hook; trying again");
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(backoff.wait(None)) => {}
            }
        }
    }

    /// Carries entries until something stops it. The place is stored at the end, if the store answers.
    async fn carry(&mut self, backoff: &mut Backoff, said: &mut bool) -> Stop {
        let name = format!("{READER}{}", self.hook.name);
        let mut reader = match TrailReader::open(self.around.store.clone(), &name).await {
            Ok(reader) => reader,
            Err(error) => return Stop::Store(error),
        };
        // Notes of another version are left out.
        self.notes = serde_json::from_str(&reader.place().notes).unwrap_or_default();
        if let Err(error) = self.note_gap(&reader).await {
            return Stop::Store(error);
        }
        backoff.reset();
        *said = false;
        let stop = loop {
            if let Err(stop) = self.step(&mut reader).await {
                break stop;
            }
        };
        match reader.save().await {
            Err(error) if matches!(stop, Stop::Asked) => {
                tracing::warn!(hook = self.hook.name, %error, "the place of a hook is not stored: some messages come again");
                stop
            }
            Ok(()) | Err(_) => stop,
        }
    }

    /// Notes that entries behind the place have left the trail, as messages that were given up.
    async fn note_gap(&mut self, reader: &TrailReader) -> Result<(), StoreError> {
        let place = reader.place();
        let Some(oldest) = reader.oldest().await? else { return Ok(()) };
        let kept_since = wall_ms() - self.around.keep_events.0;
        if oldest.revision > place.revision && place.revision > 0 && place.at_unix_ms < kept_since {
            let place_at = place.at_unix_ms;
            tracing::error!(
                hook = self.hook.name,
                "entries of the audit trail left it before the hook could carry them: the receiver was away for longer than \
                 [limits] events"
            );
            self.skip(place_at, oldest.at_unix_ms);
        }
        Ok(())
    }

    /// Carries the next message, or waits for entries.
    async fn step(&mut self, reader: &mut TrailReader) -> Result<(), Stop> {
        if self.around.handle.leadership().role() != Role::Leading {
            return Err(Stop::Asked);
        }
        // Before the read: a commit after it is a hint.
        let mut hint = self.around.handle.hub().revision();
        hint.borrow_and_update();
        let page = reader.next().await?;
        if page.is_empty() {
            self.told().oldest(&self.hook.name, None);
            if self.saved.past() >= SAVE_AFTER_DELIVERY {
                self.save(reader).await?;
            }
            return self.idle(&mut hint).await;
        }
        let wanted = |event: &StoredEvent| {
            self.hook.filter.passes(event)
                || matches!(self.hook.way, Way::Alertmanager { .. }) && alerts::may_end(event)
        };
        let Some(first) = page.iter().position(wanted) else {
            if let Some(last) = page.last() {
                reader.pass(last);
            }
            if self.saved.past() >= SAVE_AFTER_PASSING {
                self.save(reader).await?;
            }
            return Ok(());
        };
        if let Some(before) = first.checked_sub(1) {
            reader.pass(&page[before]);
        }
        let begun = &page[first];
        self.told().oldest(&self.hook.name, Some(begun.at_unix_ms));
        self.wait_for_fold(begun.at_unix_ms).await?;
        match &self.hook.way {
            Way::Alertmanager { .. } => self.carry_alerts(reader).await?,
            Way::CloudEvents { .. } | Way::Slack { .. } | Way::Command { .. } => self.carry_message(reader).await?,
        }
        if self.saved.past() >= SAVE_AFTER_DELIVERY {
            self.save(reader).await?;
        }
        Ok(())
    }

    /// Waits until the window of a fold is over.
    async fn wait_for_fold(&self, first_at: i64) -> Result<(), Stop> {
        let past = Duration::from_millis(u64::try_from(wall_ms() - first_at).unwrap_or(0));
        let rest = self.hook.fold.saturating_sub(past).min(self.hook.fold);
        if rest.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = self.stop.cancelled() => Err(Stop::Asked),
            () = tokio::time::sleep(rest) => Ok(()),
        }
    }

    /// Delivers one message: the next entry, or all entries of a window.
    async fn carry_message(&mut self, reader: &mut TrailReader) -> Result<(), Stop> {
        let window = i64::try_from(self.hook.fold.as_millis()).unwrap_or(i64::MAX);
        let mut place = reader.place().clone();
        let (mut message, mut passed): (Option<Message>, Option<StoredEvent>) = (None, None);
        'window: loop {
            let page = reader.after(&place).await?;
            let Some(last) = page.last() else { break };
            (place.revision, place.ordinal) = (last.revision, last.ordinal);
            for event in page {
                let until = message.as_ref().map(|message| message.first_at.saturating_add(window));
                let passes = self.hook.filter.passes(&event);
                if until.is_some_and(|until| event.at_unix_ms > until || passes && window == 0) {
                    break 'window;
                }
                if passes {
                    match &mut message {
                        Some(message) => message.add(event.clone()),
                        None => message = Some(Message::of(event.clone())),
                    }
                }
                passed = Some(event);
            }
        }
        let (Some(mut message), Some(passed)) = (message, passed) else { return Ok(()) };
        message.skipped.clone_from(&self.notes.skipped);
        message.look_up(&self.around.handle, &self.around.links).await;
        let (first_at, last_at) = (message.first_at, message.last.at_unix_ms);
        let fate = self.deliver(first_at, &Parcel::Message(Box::new(message))).await?;
        match fate {
            Fate::Delivered => self.notes.skipped = None,
            Fate::Skipped => self.skip(first_at, last_at),
        }
        reader.pass(&passed);
        self.keep_notes(reader);
        Ok(())
    }

    /// Delivers the alerts of the next entries in one request.
    async fn carry_alerts(&mut self, reader: &mut TrailReader) -> Result<(), Stop> {
        let mut page = reader.next().await?;
        page.truncate(ALERTS_AT_ONCE);
        let Some(last) = page.last().cloned() else { return Ok(()) };
        let wanted: Vec<StoredEvent> =
            page.into_iter().filter(|event| self.hook.filter.passes(event) || alerts::may_end(event)).collect();
        let mut lasting = self.notes.lasting.clone();
        let mut all = Vec::new();
        for event in wanted {
            let passes = self.hook.filter.passes(&event);
            let mut one = Message::of(event);
            one.look_up(&self.around.handle, &self.around.links).await;
            if let Some(line) = one.lines.first() {
                all.extend(lasting.take(line, passes, wall_ms()));
            }
        }
        if !all.is_empty() {
            let first_at = last.at_unix_ms;
            let fate = self.deliver(first_at, &Parcel::Alerts(all)).await?;
            if fate == Fate::Skipped {
                self.skip(first_at, last.at_unix_ms);
            } else {
                self.notes.skipped = None;
            }
        }
        self.notes.lasting = lasting;
        reader.pass(&last);
        self.keep_notes(reader);
        Ok(())
    }

    /// Attempts a delivery until the receiver has it, refuses it, or it is too old.
    async fn deliver(&mut self, first_at: i64, parcel: &Parcel) -> Result<Fate, Stop> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut refusals = 0;
        loop {
            if self.around.handle.leadership().role() != Role::Leading {
                return Err(Stop::Asked);
            }
            let delivery = tokio::select! {
                () = self.stop.cancelled() => return Err(Stop::Asked),
                delivery = self.send(parcel) => delivery,
            };
            let (hook, told) = (&self.hook.name, &self.around.told);
            let after = match delivery {
                Delivery::Done => {
                    told.delivered(hook);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(hook, "the hook delivers again");
                    }
                    (self.failing, self.giving_up) = (false, false);
                    return Ok(Fate::Delivered);
                }
                Delivery::Later { why, after } => {
                    told.failed(hook);
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(
                            hook,
                            why,
                            "the hook cannot deliver; trying again, and the trail keeps its entries"
                        );
                    }
                    after
                }
                Delivery::Refused(why) => {
                    told.failed(hook);
                    refusals += 1;
                    if refusals >= REFUSALS {
                        told.skipped(hook);
                        tracing::error!(hook, why, "the receiver of a hook refuses a message, which is given up");
                        return Ok(Fate::Skipped);
                    }
                    None
                }
            };
            let age = Duration::from_millis(u64::try_from(wall_ms() - first_at).unwrap_or(0));
            if age > self.hook.give_up {
                told.skipped(hook);
                if !std::mem::replace(&mut self.giving_up, true) {
                    tracing::error!(hook, "messages of a hook that are older than its `give_up` are given up");
                }
                return Ok(Fate::Skipped);
            }
            let left = self.hook.give_up.saturating_sub(age) + Duration::from_millis(1);
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stop::Asked),
                () = tokio::time::sleep(backoff.wait(after).min(left)) => {}
            }
        }
    }

    fn skip(&mut self, first_at: i64, last_at: i64) {
        let skipped = self.notes.skipped.get_or_insert(Skipped { messages: 0, first_at, last_at });
        skipped.messages += 1;
        skipped.last_at = last_at;
    }

    fn keep_notes(&self, reader: &mut TrailReader) {
        let notes = if self.notes == Notes::default() {
            String::new()
        } else {
            serde_json::to_string(&self.notes).unwrap_or_default()
        };
        reader.note(notes);
    }

    async fn save(&mut self, reader: &mut TrailReader) -> Result<(), StoreError> {
        self.saved = Moment::now();
        reader.save().await
    }

    /// Waits for a commit, or for the time at which something is due.
    async fn idle(&mut self, hint: &mut tokio::sync::watch::Receiver<wharfinger_core::Revision>) -> Result<(), Stop> {
        if !self.notes.lasting.is_empty() && self.posted.past() >= alerts::AGAIN {
            self.posted = Moment::now();
            let all = Parcel::Alerts(self.notes.lasting.alerts(wall_ms()));
            if let Delivery::Later { why, .. } | Delivery::Refused(why) = self.send(&all).await {
                tracing::debug!(hook = self.hook.name, why, "alerts that last are sent again later");
            }
        }
        tokio::select! {
            () = self.stop.cancelled() => Err(Stop::Asked),
            _ = hint.changed() => Ok(()),
            () = tokio::time::sleep(POLL) => Ok(()),
        }
    }

    async fn send(&self, parcel: &Parcel) -> Delivery {
        let limit = self.hook.timeout;
        let message = match (parcel, self.hook.way.endpoint()) {
            (Parcel::Message(message), _) => message,
            (Parcel::Alerts(all), Some(to)) => {
                let body = serde_json::to_vec(all).unwrap_or_default();
                return http::post(to, "application/json", &Headers::new(), body, limit).await;
            }
            (Parcel::Alerts(_), None) => return Delivery::later("there is no receiver"),
        };
        match &self.hook.way {
            Way::CloudEvents { to, secret_file, source } => {
                let body = serde_json::to_vec(&cloudevents::event(message, source)).unwrap_or_default();
                let (id, at) = (message.id(), wall_ms().unsigned_abs() / 1000);
                let mut headers = vec![("webhook-id", id.clone()), ("webhook-timestamp", at.to_string())];
                if let Some(file) = secret_file {
                    let secret = match http::first_line(file).await {
                        Ok(text) => {
                            Secret::parse(&text).map_err(|fault| format!("the secret in {} {fault}", file.display()))
                        }
                        Err(why) => Err(why),
                    };
                    match secret {
                        Ok(secret) => headers.push(("webhook-signature", secret.sign(&id, at, &body))),
                        Err(why) => return Delivery::later(why),
                    }
                }
                http::post(to, cloudevents::CONTENT_TYPE, &headers, body, limit).await
            }
            Way::Slack { to } => {
                let body = serde_json::to_vec(&slack::payload(message)).unwrap_or_default();
                http::post(to, "application/json; charset=utf-8", &Headers::new(), body, limit).await
            }
            Way::Command { argv, source } => {
                let mut body = serde_json::to_vec(&cloudevents::event(message, source)).unwrap_or_default();
                body.push(b'\n');
                command::run(&self.hook.name, argv, body, limit).await
            }
            Way::Alertmanager { .. } => Delivery::later("alerts are sent by themselves"),
        }
    }
}
