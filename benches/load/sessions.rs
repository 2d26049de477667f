//! Leases over sessions: each connection has one session with as many leases in flight as the unary form has calls.

use crate::meter::{Figure, Plan, busy, connect};
use crate::wharf::{Wharf, wanted};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::session_answer::Answer;
use wharfinger::pb::session_call::Call;
use wharfinger::pb::{SessionCall, SessionOpen, SessionRequest};

/// Durable leases over sessions.
pub(crate) async fn lease(wharf: &Wharf, plan: Plan) -> Figure {
    let channels = connect(wharf.address(), plan.connections).await;
    let (start, busy_before) = (Instant::now(), busy());
    let tasks: Vec<_> = channels.into_iter().map(|channel| tokio::spawn(agent(channel, plan, start))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("an agent ended well"));
    }
    let span = start.elapsed();
    let cores = (busy() - busy_before) / span.as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Figure { rate: times.len() as f64 / span.as_secs_f64(), p50: at(0.5), p99: at(0.99), cores }
}

/// Keeps the plan's number of leases in flight, and returns how long each took.
async fn agent(channel: Channel, plan: Plan, start: Instant) -> Vec<Duration> {
    let (requests, outgoing) = mpsc::channel(64);
    let open = SessionOpen { ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }), ..SessionOpen::default() };
    requests.try_send(SessionRequest { open: Some(open), ..SessionRequest::default() }).expect("there is room");
    let mut client = LeaseServiceClient::new(channel);
    let answer = client.session(ReceiverStream::new(outgoing)).await.expect("the server has sessions");
    let mut responses = answer.into_inner();
    let (mut next, mut sent, mut times) = (0, HashMap::new(), Vec::new());
    let mut ask = async |count: usize, sent: &mut HashMap<u64, Instant>| {
        let now = Instant::now();
        let calls = (0..count).map(|_| {
            next += 1;
            sent.insert(next, now);
            SessionCall { id: next, call: Some(Call::Lease(wanted(false))) }
        });
        let message = SessionRequest { calls: calls.collect(), ..SessionRequest::default() };
        requests.send(message).await.expect("the stream is open");
    };
    ask(plan.in_flight, &mut sent).await;
    while !sent.is_empty() {
        let message = responses.message().await.expect("the stream is open").expect("the stream is open");
        let count = message.answers.len();
        for answer in message.answers {
            assert!(matches!(answer.answer, Some(Answer::Lease(_))), "each lease is granted: {:?}", answer.answer);
            times.extend(sent.remove(&answer.id).map(|at| at.elapsed()));
        }
        if count > 0 && start.elapsed() < plan.span {
            ask(count, &mut sent).await;
        }
    }
    times
}
