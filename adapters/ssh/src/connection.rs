//! Connections to one host: one that is kept, and one for each reader that may be slow.
//!
//! Why not all over one: the library's event loop hands each channel's data to a bounded queue and waits when that is
//! full, and it grants the remote side new window when data arrives, not when it is read (russh 0.65,
//! `client/encrypted.rs`). So one slow reader stops the whole connection, keep-alive and probes with it, and a host
//! would look dead because a holder paused `less`. So over the kept connection goes only what we always read at
//! full speed; output for a caller's own reader comes over a connection of its own, where waiting is just what we want.

use crate::answers::{Answers, Silence, Surroundings};
use crate::endpoint::{Attempts, Endpoint};
use crate::error::{Kind, SshError};
use crate::notices::Reporter;
use russh::client::{self, DisconnectReason, Msg};
use russh::keys::{PrivateKey, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelOpenFailure, Disconnect};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wharfinger_host::check::Boot;

/// Logins under way at once to one host, besides that of the kept connection: sshd begins to drop them at ten by
/// default (MaxStartups 10:30:100).
const HANDSHAKES_MAX: usize = 4;

/// Attempts at a session, on a connection that has taken every one so far, and on one that has refused one.
const OPEN_ATTEMPTS: u32 = 10;
const FULL_ATTEMPTS: u32 = 2;

/// Number of probes of which one runs a command on the host; the others are pings.
const THOROUGH_EVERY: u64 = 12;

/// Tasks that begin with a kept connection.
pub(crate) type OnKept = fn(&Arc<Connection>, &Arc<Live>);

/// All connections to one host.
pub(crate) struct Connection {
    pub(crate) endpoint: Endpoint,
    pub(crate) reporter: Option<Arc<Reporter>>,
    /// Called with each connection that is kept from then on.
    on_kept: OnKept,
    /// Locked for moments only, never over an await.
    kept: Mutex<Kept>,
    handshakes: Semaphore,
    questions: AtomicU64,
    /// By any connection, or by a ping.
    pub(crate) shown: Shown,
    /// Times that the answers of the host took.
    pub(crate) answers: Answers,
    /// Surroundings that the hosts of the pool have in common.
    pub(crate) surroundings: Arc<Surroundings>,
    /// Runs while the host has leases.
    pulse: Mutex<Option<Running>>,
    /// For commands; for probes; for kills. Apart, so that eight long commands do not make the host look dead.
    pub(crate) sessions: Semaphore,
    pub(crate) probes: Semaphore,
    pub(crate) kills: Semaphore,
    /// For commands with a connection of their own.
    pub(crate) streams: Semaphore,
}

/// A task that ends with this value.
pub(crate) struct Running(pub(crate) AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The kept connection, and the attempt at a new one.
#[derive(Default)]
struct Kept {
    live: Option<Arc<Live>>,
    /// One at a time, in a task of its own: it goes on when the one who wanted it has stopped waiting, so that three
    /// questions of three seconds are three chances for one attempt, and not three attempts without a chance.
    dial: Option<Dial>,
    dials: u64,
}

struct Dial {
    number: u64,
    /// The host has shown its key in this attempt.
    shown: Shown,
    result: watch::Receiver<Option<Dialled>>,
}

type Dialled = Result<Arc<Live>, SshError>;

/// A connection that is logged in. Dropped, it is closed as soon as its channels are.
pub(crate) struct Live {
    handle: client::Handle<Client>,
    state: Arc<State>,
    /// The boot that answers over it, once asked. A session cannot outlive a reboot or move to another machine, so that
    /// from then on any answer over it is an answer of that boot.
    boot: OnceLock<Boot>,
    /// A question over it has waited for long, and is not answered yet.
    owes: AtomicBool,
    /// The server has refused a further session on it (MaxSessions).
    full: AtomicBool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) ended: CancellationToken,
    /// The connection is not kept any more: tasks that only it needs may end.
    pub(crate) retired: CancellationToken,
    reason: Mutex<Option<String>>,
    deliberate: AtomicBool,
}

impl Live {
    pub(crate) fn new(handle: client::Handle<Client>, state: Arc<State>) -> Self {
        Self { handle, state, boot: OnceLock::new(), owes: AtomicBool::new(false), full: AtomicBool::new(false) }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.state.ended.is_cancelled() && !self.handle.is_closed()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    pub(crate) fn handle(&mut self) -> &mut client::Handle<Client> {
        &mut self.handle
    }

    /// Why it ended, in words.
    pub(crate) fn reason(&self) -> String {
        let reason = self.state.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reason.unwrap_or_else(|| "the connection was reset".to_string())
    }

    /// One round trip without a process on the host. False: the connection ended instead.
    pub(crate) async fn ping(&self) -> bool {
        // The library says `Ok` also when the connection ended before the answer came; it closes its own end first.
        self.handle.send_ping().await.is_ok() && self.is_open()
    }

    pub(crate) fn boot(&self) -> Option<&Boot> {
        self.boot.get()
    }

    pub(crate) fn proved(&self, boot: Boot) {
        let _ = self.boot.set(boot);
    }

    pub(crate) fn owes(&self) -> bool {
        self.owes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_owes(&self, owes: bool) {
        self.owes.store(owes, Ordering::Relaxed);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.state.end_deliberately();
    }
}

impl State {
    /// An end from here on is deliberate; an earlier one was not.
    fn end_deliberately(&self) {
        self.retired.cancel();
        if !self.ended.is_cancelled() {
            self.deliberate.store(true, Ordering::Relaxed);
        }
    }
}

/// When a host has last proved that it is there: by its pinned key, or by an answer over a connection that has seen it.
#[derive(Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<Option<Instant>>>);

impl Shown {
    pub(crate) fn get(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether it has done so since then.
    pub(crate) fn since(&self, begun: Instant) -> bool {
        self.lock().is_some_and(|at| at >= begun)
    }

    pub(crate) fn now(&self) {
        *self.lock() = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives the calls of the library; dropped when the connection has ended, for whatever reason.
pub(crate) struct Client {
    pub(crate) pinned: PublicKey,
    pub(crate) state: Arc<State>,
    pub(crate) shown: Vec<Shown>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // The library calls `disconnected` only where the socket could still be shut down; this comes always.
        self.state.ended.cancel();
    }
}

#[derive(Debug)]
pub(crate) enum ClientError {
    Library(russh::Error),
    WrongHost(PublicKey),
}

impl From<russh::Error> for ClientError {
    fn from(error: russh::Error) -> Self {
        Self::Library(error)
    }
}

impl client::Handler for Client {
    type Error = ClientError;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        match presented {
            // Exactly the pinned key: no other key of the same host, and no certificate over it.
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.pinned.key_data() => {
                self.shown.iter().for_each(Shown::now);
                Ok(true)
            }
            other => Err(ClientError::WrongHost(other.public_key())),
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let (text, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => (format!("the host said goodbye: {}", info.message), Ok(())),
            DisconnectReason::Error(ClientError::Library(russh::Error::KeepaliveTimeout)) => {
                ("no answer to keep-alives".to_string(), Ok(()))
            }
            DisconnectReason::Error(ClientError::Library(russh::Error::Disconnect)) => {
                ("the host closed the connection".to_string(), Ok(()))
            }
            DisconnectReason::Error(error) => (
                match &error {
                    ClientError::Library(error) => error.to_string(),
                    ClientError::WrongHost(_) => "another host key at re-keying".to_string(),
                },
                Err(error),
            ),
        };
        *self.state.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        result
    }
}

impl Connection {
    /// Connections without a notice of their end.
    pub(crate) fn unreported(endpoint: Endpoint) -> Self {
        Self::new(endpoint, None, |_, _| {})
    }

    pub(crate) fn new(endpoint: Endpoint, reporter: Option<Arc<Reporter>>, on_kept: OnKept) -> Self {
        let sessions = endpoint.limits.sessions;
        let surroundings = reporter.as_ref().map_or_else(Arc::default, |reporter| Arc::clone(&reporter.surroundings));
        let mut spread = DefaultHasher::new();
        endpoint.name.hash(&mut spread);
        Self {
            reporter,
            on_kept,
            kept: Mutex::default(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            shown: Shown::default(),
            answers: Answers::default(),
            surroundings,
            pulse: Mutex::default(),
            questions: AtomicU64::new(spread.finish() % THOROUGH_EVERY),
            sessions: Semaphore::new(sessions),
            probes: Semaphore::new(1),
            kills: Semaphore::new(1),
            streams: Semaphore::new(sessions),
            endpoint,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pulse of the host, while it has leases. Locked for moments only.
    pub(crate) fn pulse(&self) -> MutexGuard<'_, Option<Running>> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits of a question asked now.
    pub(crate) fn silence(&self) -> Silence {
        let answer = self.endpoint.limits.answer;
        match self.endpoint.limits.pulse {
            Some(_) => self.answers.silence(answer, &self.surroundings),
            None => Silence::fixed(answer),
        }
    }

    /// The host has answered a ping that was sent then.
    pub(crate) fn answered(&self, begun: Instant) {
        self.answers.note(begun.elapsed(), &self.surroundings);
        self.shown.now();
    }

    /// Whether it is time that a probe runs a command; spread by the host's name, so that a farm's turns do not coincide.
    pub(crate) fn thorough_is_due(&self) -> bool {
        self.questions.fetch_add(1, Ordering::Relaxed).is_multiple_of(THOROUGH_EVERY)
    }

    /// The kept connection, if there is one that has not ended.
    pub(crate) fn open_kept(&self) -> Option<Arc<Live>> {
        self.lock().live.clone().filter(|live| live.is_open())
    }

    /// Whether the host has proved since then that it is there, or has begun a login that is still under way.
    pub(crate) fn is_alive_since(&self, begun: Instant) -> bool {
        self.shown.since(begun) || self.lock().dial.as_ref().is_some_and(|dial| dial.shown.get())
    }

    /// The kept connection, made if there is none. Callers that come while it is being made get the same result.
    pub(crate) async fn kept(self: &Arc<Self>) -> Result<Arc<Live>, SshError> {
        let result = {
            let mut kept = self.lock();
            if let Some(live) = kept.live.as_ref().filter(|live| live.is_open()) {
                return Ok(Arc::clone(live));
            }
            self.dialling(&mut kept, Attempts::of(&self.endpoint))
        };
        self.outcome(result).await
    }

    /// A new connection beside a kept one that owes an answer. It takes the other's place if that still owes it then.
    pub(crate) async fn fresh(self: &Arc<Self>) -> Result<Arc<Live>, SshError> {
        let result = self.dialling(&mut self.lock(), Attempts::eager(&self.endpoint));
        self.outcome(result).await
    }

    async fn outcome(&self, mut result: watch::Receiver<Option<Dialled>>) -> Dialled {
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(dialled)) => dialled.clone(),
            Ok(None) | Err(_) => Err(SshError::new(
                Kind::Lost,
                format!("{}: the attempt to connect was given up", self.endpoint.place()),
            )),
        }
    }

    /// The attempt under way, or a new one.
    fn dialling(self: &Arc<Self>, kept: &mut Kept, attempts: Attempts) -> watch::Receiver<Option<Dialled>> {
        if let Some(dial) = &kept.dial
            // An error: its task ended without a word.
            && dial.result.has_changed().is_ok()
        {
            return dial.result.clone();
        }
        kept.dials += 1;
        let number = kept.dials;
        let (tell, result) = watch::channel(None);
        let shown = Shown::default();
        kept.dial = Some(Dial { number, shown: shown.clone(), result: result.clone() });
        let this = Arc::clone(self);
        // Ends with the attempts.
        tokio::spawn(async move {
            let dialled = this.dial_for_keeps(&shown, attempts).await.map(Arc::new);
            this.dialled(number, &dialled);
            let _ = tell.send(Some(dialled));
        });
        result
    }

    /// An attempt has come to its end: what it made takes the place of a connection that has ended or owes an answer.
    fn dialled(self: &Arc<Self>, number: u64, dialled: &Dialled) {
        let mut kept = self.lock();
        // Closed meanwhile: waiting callers may use it, and it is not kept.
        if kept.dial.as_ref().is_none_or(|dial| dial.number != number) {
            return;
        }
        kept.dial = None;
        let Ok(live) = dialled else { return };
        match &kept.live {
            Some(former) if former.is_open() && !former.owes() => return,
            // Commands that run over it may come to their end; its own end is no news any more.
            Some(former) => former.state.end_deliberately(),
            None => {}
        }
        kept.live = Some(Arc::clone(live));
        drop(kept);
        self.report_the_end_of(live);
        (self.on_kept)(self, live);
    }

    /// A connection for one slow reader. Small buffers: what it does not read should wait on the host.
    pub(crate) async fn own(&self) -> Result<Live, SshError> {
        let turn = self.handshakes.acquire().await;
        let live = self.dial(256 << 10, 8).await;
        drop(turn);
        live
    }

    /// Makes a connection as a holder does, with this key or the broker's own, and closes it.
    pub(crate) async fn try_login(self: &Arc<Self>, key: Option<Arc<PrivateKey>>) -> Result<(), SshError> {
        let as_holder = match key {
            Some(key) => {
                let endpoint = Endpoint { key, key_path: None, certified: None, ..self.endpoint.clone() };
                Arc::new(Self { shown: self.shown.clone(), ..Self::unreported(endpoint) })
            }
            None => Arc::clone(self),
        };
        // Counted with the other logins to this host.
        let _turn = self.handshakes.acquire().await;
        as_holder.dial(64 << 10, 8).await.map(drop)
    }

    /// Closes the kept connection, without a notice.
    pub(crate) async fn close(&self) {
        *self.pulse() = None;
        let live = {
            let mut kept = self.lock();
            kept.dial = None;
            kept.live.take()
        };
        if let Some(live) = live {
            live.state.end_deliberately();
            // A host that hangs does not take the message; its connection ends when the keep-alive says so.
            let goodbye = live.handle.disconnect(Disconnect::ByApplication, "closed by the broker", "");
            let _ = timeout(Duration::from_millis(100), goodbye).await;
        }
    }

    /// Tells the broker when the kept connection ends by itself.
    fn report_the_end_of(&self, live: &Arc<Live>) {
        let Some(reporter) = self.reporter.clone() else { return };
        let (name, place) = (self.endpoint.name.clone(), self.endpoint.place());
        let state = Arc::clone(&live.state);
        // Ends with the kept connection.
        tokio::spawn(async move {
            state.ended.cancelled().await;
            if !state.deliberate.load(Ordering::Relaxed) {
                let reason = state.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let reason = reason.unwrap_or_else(|| "it was reset".to_string());
                let detail = format!("the kept connection to {place} ended: {reason}");
                tracing::info!(host = name, "{detail}");
                reporter.connection_lost(&name, detail).await;
            }
        });
    }

    /// Opens a channel for one command.
    pub(crate) async fn open(&self, live: &Live) -> Result<Channel<Msg>, SshError> {
        let place = self.endpoint.place();
        // sshd gives a session's place free a moment after it said that the command before has ended.
        let most = if live.full.load(Ordering::Relaxed) { FULL_ATTEMPTS } else { OPEN_ATTEMPTS };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let opened = timeout(self.endpoint.limits.connect, live.handle.channel_open_session()).await;
            match opened {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(russh::Error::ChannelOpenFailure(
                    ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage,
                ))) if attempt < most => sleep(Duration::from_millis(50)).await,
                Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                    live.full.store(true, Ordering::Relaxed);
                    let text = format!(
                        "{place} takes no session on a new connection ({reason:?}); raise MaxSessions in its sshd_config"
                    );
                    return Err(SshError::new(Kind::NoSession, text));
                }
                Ok(Err(_)) => {
                    return Err(SshError::new(
                        Kind::Lost,
                        format!("the connection to {place} was lost: {}", live.reason()),
                    ));
                }
                Err(_) => {
                    let limit = self.endpoint.limits.connect.as_millis();
                    return Err(SshError::new(Kind::Timeout, format!("{place} does not answer within {limit} ms")));
                }
            }
        }
    }
}
