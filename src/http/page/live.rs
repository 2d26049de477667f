//! Live screens: one stream of events for each tab.
//!
//! The stream sends a whole screen, and sends it again when it differs: a lost connection loses nothing. All tabs that show the same to the
//! same caller share one rendering. A `tick` says each few seconds that the stream lives, and how old the data is.

use super::answer::Page;
use super::ask::Ask;
use super::part::clipped;
use super::screen::Screen;
use super::view;
use crate::auth::Verbs;
use crate::clock::Moment;
use crate::rpc::{InsideCaller, InsideError, Standing};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Maximum number of streams. The next one is refused at once, and the tab asks again and again instead.
const STREAMS: usize = 256;
/// Minimum time between two renderings of one screen.
const PAUSE: Duration = Duration::from_millis(250);
/// Rest after a rendering, in times of its length: a screen takes at most a fifth of the time.
const REST: u32 = 4;
/// Maximum rest after a rendering.
const MAX_REST: Duration = Duration::from_millis(750);
/// Time between two signs of life.
const TICK: Duration = Duration::from_secs(5);
/// Maximum time without a new rendering: a screen has things that no revision changes, as the age of the data.
const AGAIN: Duration = Duration::from_secs(30);

/// The streams of a server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Live {
    room: Arc<Semaphore>,
    shared: Arc<Mutex<BTreeMap<Key, Weak<Shared>>>>,
    stop: CancellationToken,
}

/// The latest rendering of a screen, for all tabs of one caller that show it.
type Shared = tokio::sync::Mutex<Option<Rendering>>;

/// A screen and its viewer.
type Key = (Seen, [Option<Arc<str>>; 3], Option<IpAddr>);

/// A screen with the verbs on it.
pub(super) type Seen = (Screen, Verbs);

/// A screen as it was at a revision.
#[derive(Clone)]
struct Rendering {
    revision: u64,
    at: Moment,
    digest: [u8; 32],
    main: Arc<str>,
}

impl Live {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { room: Arc::new(Semaphore::new(STREAMS)), shared: Arc::default(), stop }
    }

    /// A place for a stream, if one is free.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// The place of a rendering that all tabs of one caller share.
    fn shared(&self, key: &Key) -> Arc<Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|_, one| one.strong_count() > 0);
        if let Some(one) = shared.get(key).and_then(Weak::upgrade) {
            return one;
        }
        let one = Arc::default();
        shared.insert(key.clone(), Arc::downgrade(&one));
        one
    }
}

impl Page {
    /// Opens the stream of a screen. `since`: the screen is not older than this revision.
    pub(super) fn stream(&self, place: OwnedSemaphorePermit, caller: InsideCaller, seen: Seen, since: u64) -> Response {
        let (out, events) = mpsc::channel::<Result<Event, Infallible>>(2);
        let page = self.clone();
        // Ends with the stream, or with the server.
        tokio::spawn(async move {
            let stop = page.live.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = out.closed() => {}
                () = page.send(&out, caller, seen, since) => {}
            }
            drop(place);
        });
        ([("x-accel-buffering", "no")], Sse::new(ReceiverStream::new(events))).into_response()
    }

    /// A screen once, for a tab without a stream.
    pub(super) async fn once(&self, caller: &InsideCaller, seen: Seen) -> Result<String, InsideError> {
        let shared = self.live.shared(&key(&seen, caller));
        let revision = self.inside.standing().revision;
        let rendering = self.render(&shared, caller, &seen, 0, revision).await?;
        Ok(json!({ "view": &*rendering.main, "tick": said(&self.inside.standing()) }).to_string())
    }

    /// Sends a screen whenever it differs, and ticks between. It ends when the tab is gone or the caller is refused.
    async fn send(&self, out: &mpsc::Sender<Result<Event, Infallible>>, caller: InsideCaller, seen: Seen, since: u64) {
        let mut revisions = self.inside.revisions();
        let shared = self.live.shared(&key(&seen, &caller));
        let mut sent: Option<[u8; 32]> = None;
        let mut wanted = since;
        loop {
            let begun = Moment::now();
            let revision = revisions.borrow_and_update().0;
            let rest = match self.render(&shared, &caller, &seen, wanted, revision).await {
                Ok(rendering) => {
                    wanted = 0;
                    if sent != Some(rendering.digest) {
                        sent = Some(rendering.digest);
                        let event =
                            Event::default().event("view").id(rendering.revision.to_string()).data(&*rendering.main);
                        if out.send(Ok(event.retry(Duration::from_secs(2)))).await.is_err() {
                            return;
                        }
                    }
                    (begun.past() * REST).clamp(PAUSE, MAX_REST)
                }
                Err(error) => {
                    let event = Event::default().event("refused").data(clipped(&error.message));
                    let _ = out.send(Ok(event)).await;
                    return;
                }
            };
            if out.send(Ok(tick(&self.inside.standing()))).await.is_err() {
                return;
            }
            tokio::time::sleep(rest).await;
            let idle = Moment::now();
            loop {
                match tokio::time::timeout(TICK, revisions.changed()).await {
                    Ok(Ok(())) => break,
                    // The engine has ended, and the server with it.
                    Ok(Err(_)) => return,
                    Err(_) if idle.past() >= AGAIN => break,
                    Err(_) => {
                        if out.send(Ok(tick(&self.inside.standing()))).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// The screen as it is now, at least at this revision. One of those that wait for it renders it for all.
    async fn render(
        &self,
        shared: &Shared,
        caller: &InsideCaller,
        (screen, verbs): &Seen,
        since: u64,
        revision: u64,
    ) -> Result<Rendering, InsideError> {
        let mut kept = shared.lock().await;
        if let Some(rendering) = &*kept
            && rendering.revision >= revision.max(since)
            && rendering.at.past() < AGAIN
        {
            return Ok(rendering.clone());
        }
        let shown = Ask { inside: &self.inside, caller, since, verbs: *verbs }.screen(screen).await?;
        // An event of a stream has no carriage return in it.
        let main: Arc<str> = shown.main.into_string().replace('\r', " ").into();
        let digest = Sha256::digest(main.as_bytes()).into();
        let rendering = Rendering { revision: revision.max(since), at: Moment::now(), digest, main };
        *kept = Some(rendering.clone());
        Ok(rendering)
    }
}

/// A screen and all that shows who looks at it.
fn key(seen: &Seen, caller: &InsideCaller) -> Key {
    let connection = &caller.connection;
    let proofs = [connection.certificate(), connection.proxied()].map(|text| text.map(Arc::from));
    let [certificate, proxied] = proofs;
    (seen.clone(), [caller.token.clone(), certificate, proxied], connection.address().map(|address| address.ip()))
}

/// A sign of life.
fn tick(standing: &Standing) -> Event {
    Event::default().event("tick").data(said(standing).to_string())
}

/// The place of the server and the age of its data, for the script.
fn said(standing: &Standing) -> serde_json::Value {
    let age = standing.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json!({
        "revision": standing.revision.to_string(),
        "role": view::role(standing),
        "configuration": view::configuration(standing),
        "fresh": standing.fresh,
        "age_ms": age,
    })
}
