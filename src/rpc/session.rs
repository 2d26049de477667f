//! The stream of a session: an agent leases, releases and reports over it, keeps all its leases by heartbeats, and hears of
//! their changes.
//!
//! One task serves a stream. It submits each heartbeat to the core, which keeps in memory when it came. The end of the stream is
//! submitted too, unless it is this server that ends it: the doubt would then be about the server. The answers and events that are
//! ready travel in one message. The events are those of a watch on the session's leases.

use crate::auth::Identity;
use crate::engine::{Filter, SubmitError};
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert::{self, Opening, Renewal, Watching};
use crate::rpc::lease::{leased, leases_of, release, renewed, report};
use crate::rpc::status::{RpcError, refusal};
use crate::rpc::{allow, watch};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use wharfinger_core::{Input, Reply, Revision, Session, SessionStream};

/// Messages that wait for the connection.
pub(crate) const CHANNEL: usize = 16;
/// Calls of a stream under way, beyond which its next message waits.
const CALLS: usize = 4096;
/// Maximum number of answers, and of events, of one message.
const BATCH: usize = 512;
/// Time in which a stream has to open its session.
const FIRST: Duration = Duration::from_secs(10);

/// An item of a session's stream.
pub(crate) type Message = Result<pb::SessionResponse, Status>;

/// Serves a stream until it ends.
pub(crate) async fn run(
    context: Context,
    identity: Arc<Identity>,
    mut requests: Streaming<pb::SessionRequest>,
    out: mpsc::Sender<Message>,
) {
    let (session, opening, first) = match open(&context, &identity, &mut requests).await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = out.send(Err(error.into())).await;
            return;
        }
    };
    let stream = session.present();
    let served = Stream { context: &context, identity: &identity, session: &session, stream, out: &out };
    let end = served.serve(opening, first, requests).await;
    let doubted = match &end {
        End::AgentGone | End::Refused(_) => true,
        End::Closed | End::Server(_) | End::Events(_) => false,
    };
    if doubted {
        // A stream that was replaced, and a session that ended, change nothing by this.
        if let Err(error) = context.submit(Input::StreamEnded(stream)).await {
            tracing::debug!(%error, session = %session.id, "the end of a stream was not stored");
        }
    }
    let status = match end {
        End::Refused(error) | End::Server(error) => error.into(),
        End::Events(status) => status,
        End::AgentGone | End::Closed => return,
    };
    let _ = out.send(Err(status)).await;
}

/// Reads the first message, and opens or resumes its session.
async fn open(
    context: &Context,
    identity: &Arc<Identity>,
    requests: &mut Streaming<pb::SessionRequest>,
) -> Result<(Arc<Session>, Opening, pb::SessionRequest), RpcError> {
    let first = tokio::select! {
        () = context.stop.cancelled() => return Err(RpcError::Stopping),
        first = tokio::time::timeout(FIRST, requests.message()) => first,
    };
    let first = match first {
        Ok(Ok(first)) => first.unwrap_or_default(),
        Ok(Err(status)) => return Err(RpcError::Malformed(status.message().to_owned())),
        Err(_) => return Err(RpcError::TimedOut(FIRST)),
    };
    let opening = convert::session::opening(&first, identity.leases())?;
    let input = opening.input.clone();
    match context.within(async { Ok(context.submit(input).await?) }).await? {
        Reply::Session(session) => Ok((session, opening, first)),
        _ => Err(RpcError::Bug("the core answered without a session")),
    }
}

/// The end of a stream.
enum End {
    /// The agent is gone, or ended the stream without closing the session.
    AgentGone,
    /// The agent closed the session.
    Closed,
    /// The agent may not go on.
    Refused(RpcError),
    /// The server ends it: the agent goes on elsewhere.
    Server(RpcError),
    /// Its events cannot go on: the agent begins anew.
    Events(Status),
}

/// Work under way for a stream.
enum Done {
    Answer(Box<pb::SessionAnswer>),
    /// A heartbeat, with its number.
    Beat(u64, Result<Reply, SubmitError>),
    Closed(Result<Reply, SubmitError>),
}

type Work<'s> = FuturesUnordered<BoxFuture<'s, Done>>;

struct Stream<'s> {
    context: &'s Context,
    identity: &'s Arc<Identity>,
    session: &'s Session,
    stream: SessionStream,
    out: &'s mpsc::Sender<Message>,
}

impl<'s> Stream<'s> {
    async fn serve(
        &self,
        opening: Opening,
        first: pb::SessionRequest,
        mut requests: Streaming<pb::SessionRequest>,
    ) -> End {
        let opened = Some(convert::session::opened(self.session));
        if self.send(pb::SessionResponse { opened, ..Default::default() }).await.is_err() {
            return End::AgentGone;
        }
        let (events, mut news) = mpsc::channel(watch::CHANNEL);
        let mut watching = pin!(self.watch(&opening, events));
        // Roles that changed are asked for anew, with another stream.
        let mut ended = pin!(self.context.trust.ended(self.identity, |_| false));
        let mut work: Work<'_> = FuturesUnordered::new();
        let mut closing = self.take(first, &mut work);
        loop {
            // After all that was asked for before it.
            if closing && work.is_empty() {
                let (context, stream, caller) = (self.context, self.stream, self.identity.leases());
                work.push(Box::pin(async move {
                    Done::Closed(context.submit(Input::CloseSession { stream, caller }).await)
                }));
            }
            let mut message = pb::SessionResponse::default();
            tokio::select! {
                biased;
                () = self.out.closed() => return End::AgentGone,
                () = self.context.stop.cancelled() => return End::Server(RpcError::Stopping),
                error = &mut ended => return End::Refused(error.into()),
                Some(done) = work.next(), if !work.is_empty() => {
                    if let Some(end) = Self::gather(done, &mut message) {
                        return end;
                    }
                }
                Some(event) = news.recv() => match event {
                    Ok(event) => message.events.push(event),
                    Err(status) => return End::Events(status),
                },
                () = &mut watching => return End::AgentGone,
                request = requests.message(), if !closing && work.len() < CALLS => match request {
                    Ok(Some(request)) => {
                        if let Err(error) = convert::session::message(&request) {
                            return End::Refused(error);
                        }
                        closing = self.take(request, &mut work);
                        continue;
                    }
                    Ok(None) | Err(_) => return End::AgentGone,
                },
            }
            // Whatever else is ready travels with it.
            while message.answers.len() < BATCH
                && let Some(Some(done)) = futures::FutureExt::now_or_never(work.next())
            {
                if let Some(end) = Self::gather(done, &mut message) {
                    let _ = self.send(message).await;
                    return end;
                }
            }
            while message.events.len() < BATCH
                && let Ok(Ok(event)) = news.try_recv()
            {
                message.events.push(event);
            }
            if message != pb::SessionResponse::default() && self.send(message).await.is_err() {
                return End::AgentGone;
            }
        }
    }

    /// The changes of the session's leases, as a watch.
    async fn watch(&self, opening: &Opening, events: mpsc::Sender<watch::Message>) {
        let caller = self.identity.leases();
        let filter = Filter { session: Some(self.session.id), ..Filter::new(caller.sees.clone()) };
        let asked = Watching {
            owner: Some(caller),
            filter,
            from: opening.from,
            include_ended: opening.resumes,
            min: Revision(0),
            bookmarks: opening.bookmarks,
        };
        let never = std::future::pending();
        watch::run(self.context.clone(), asked, events, self.context.stop.clone(), never).await;
    }

    /// Starts what a message asks for. Each message is a heartbeat. Returns whether it closes the session.
    fn take(&self, request: pb::SessionRequest, work: &mut Work<'s>) -> bool {
        let (context, identity, stream) = (self.context, self.identity, self.stream);
        let (beat, ttl) = (request.beat, self.session.ttl);
        work.push(Box::pin(async move { Done::Beat(beat, context.submit(Input::Beat(stream)).await) }));
        for call in request.calls {
            work.push(Box::pin(async move {
                let answer = answer(context, identity, (stream, ttl), call.call).await;
                let answer = answer.unwrap_or_else(|error| pb::session_answer::Answer::Refusal(refusal(error)));
                Done::Answer(Box::new(pb::SessionAnswer { id: call.id, answer: Some(answer) }))
            }));
        }
        request.close
    }

    /// Puts a result into the next message. Returns the end of the stream, if it is one.
    fn gather(done: Done, message: &mut pb::SessionResponse) -> Option<End> {
        match done {
            Done::Answer(answer) => message.answers.push(*answer),
            Done::Beat(number, Ok(_)) => message.beat = message.beat.max(number),
            Done::Closed(Ok(_)) => return Some(End::Closed),
            Done::Beat(_, Err(error @ SubmitError::Rejected(_)))
            | Done::Closed(Err(error @ SubmitError::Rejected(_))) => {
                return Some(End::Refused(error.into()));
            }
            // The broker recovers from its store: a later heartbeat counts.
            Done::Beat(_, Err(SubmitError::Unavailable(_))) => {}
            Done::Beat(_, Err(error)) | Done::Closed(Err(error)) => return Some(End::Server(error.into())),
        }
        None
    }

    async fn send(&self, message: pb::SessionResponse) -> Result<(), mpsc::error::SendError<Message>> {
        self.out.send(Ok(message)).await
    }
}

/// Answers one call, by the rules of the call of its own.
async fn answer(
    context: &Context,
    identity: &Arc<Identity>,
    (stream, ttl): (SessionStream, wharfinger_core::Millis),
    call: Option<pb::session_call::Call>,
) -> Result<pb::session_answer::Answer, RpcError> {
    use pb::session_answer::Answer;
    use pb::session_call::Call;
    let caller = identity.leases();
    let work = async {
        match call {
            Some(Call::Lease(request)) => {
                let mut wanted = convert::session::lease_kept(&request, caller.clone(), stream)?;
                allow::lease_kept(context, identity, &mut wanted, ttl)?;
                context.count_request(&caller)?;
                let leases = leases_of(context.submit(Input::Lease(wanted)).await?)?;
                Ok(Answer::Lease(leased(context, &caller, &leases).await?))
            }
            Some(Call::Release(request)) => Ok(Answer::Release(release(context, identity, &request).await?)),
            Some(Call::Report(request)) => Ok(Answer::Report(report(context, identity, &request).await?)),
            Some(Call::Renew(request)) => {
                let (renewal, ids) = convert::session::keep(&request)?;
                let mut each = allow::keep_all(context, identity, ids, (stream, ttl)).await?;
                match renewal {
                    Renewal::Several(_) => {
                        let results = renewed(context, &caller, each).await?;
                        Ok(Answer::Renew(pb::RenewResponse { lease: None, results }))
                    }
                    Renewal::One(_) => {
                        let (_, kept) = each.pop().ok_or(RpcError::Bug("a renewal has no result"))?;
                        let lease = Some(context.tell(&*kept?, &caller).await?);
                        Ok(Answer::Renew(pb::RenewResponse { lease, results: Vec::new() }))
                    }
                }
            }
            None => Err(convert::session::no_call()),
        }
    };
    context.within(work).await
}

#[cfg(test)]
mod tests;
