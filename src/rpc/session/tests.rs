//! Sessions over the whole broker: engine, store in memory, fake adapter, real connections.

use crate::client::reason;
use crate::pb;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::pb::session_answer::Answer;
use crate::pb::session_call::Call;
use crate::rpc::RpcLimits;
use crate::rpc::convert::session::MAX_SESSION_CALLS;
use crate::rpc::testing::{Broker, broker, follower, leading};
use crate::rpc::tests::{active, wanted};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

fn span(time: Duration) -> Option<prost_types::Duration> {
    time.try_into().ok()
}

async fn client(broker: &Broker) -> LeaseServiceClient<Channel> {
    LeaseServiceClient::connect(format!("http://{}", broker.server.address)).await.unwrap()
}

/// An agent with the stream of its session.
struct Agent {
    requests: mpsc::Sender<pb::SessionRequest>,
    responses: Streaming<pb::SessionResponse>,
    opened: pb::SessionOpened,
    answers: BTreeMap<u64, Answer>,
    events: Vec<pb::Lease>,
    revision: u64,
    beat: u64,
    calls: u64,
}

impl Agent {
    async fn open(broker: &Broker, open: pb::SessionOpen) -> Result<Agent, Status> {
        let (requests, stream) = mpsc::channel(16);
        let first = pb::SessionRequest { open: Some(open), ..Default::default() };
        requests.send(first).await.unwrap();
        let mut responses = client(broker).await.session(ReceiverStream::new(stream)).await?.into_inner();
        let opened = responses.message().await?.expect("the stream stays").opened.expect("it comes first");
        let (answers, events) = (BTreeMap::new(), Vec::new());
        Ok(Agent { requests, responses, opened, answers, events, revision: 0, beat: 0, calls: 0 })
    }

    async fn with_ttl(broker: &Broker, ttl: Duration) -> Agent {
        let open = pb::SessionOpen { ttl: span(ttl), holder: "agent 7".into(), ..Default::default() };
        Agent::open(broker, open).await.unwrap()
    }

    async fn resume(self, broker: &Broker) -> Agent {
        let open = pb::SessionOpen {
            session_id: self.opened.session_id.clone(),
            from_revision: self.revision,
            ..Default::default()
        };
        Agent::open(broker, open).await.unwrap()
    }

    async fn send(&self, request: pb::SessionRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn read(&mut self) -> Result<(), Status> {
        let Some(message) = self.responses.message().await? else { return Err(Status::ok("the stream ended")) };
        self.answers.extend(message.answers.into_iter().filter_map(|answer| Some((answer.id, answer.answer?))));
        self.beat = self.beat.max(message.beat);
        for event in message.events {
            self.revision = self.revision.max(event.revision);
            if let Some(pb::watch_response::Event::Lease(lease)) = event.event {
                self.events.push(lease);
            }
        }
        Ok(())
    }

    /// Makes calls in one message, and returns their answers in their order.
    async fn calls(&mut self, calls: Vec<Call>) -> Vec<Answer> {
        let first = self.calls + 1;
        self.calls += calls.len() as u64;
        let calls = (first..).zip(calls).map(|(id, call)| pb::SessionCall { id, call: Some(call) }).collect();
        self.send(pb::SessionRequest { calls, ..Default::default() }).await;
        while !(first..=self.calls).all(|id| self.answers.contains_key(&id)) {
            self.read().await.unwrap();
        }
        (first..=self.calls).map(|id| self.answers.remove(&id).unwrap()).collect()
    }

    async fn lease(&mut self, id: &str) -> pb::Lease {
        match self.calls(vec![Call::Lease(wanted(id))]).await.pop() {
            Some(Answer::Lease(answer)) => answer.lease.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// A heartbeat that counts.
    async fn beats(&mut self) {
        let beat = self.beat + 1;
        self.send(pb::SessionRequest { beat, ..Default::default() }).await;
        while self.beat < beat {
            self.read().await.unwrap();
        }
    }

    /// Reads until an event shows this lease so.
    async fn hears(&mut self, id: &str, wanted: impl Fn(&pb::Lease) -> bool) -> pb::Lease {
        loop {
            if let Some(lease) = self.events.iter().rev().find(|lease| lease.id == id).filter(|lease| wanted(lease)) {
                return lease.clone();
            }
            self.read().await.unwrap();
        }
    }

    /// The status with which the stream ends.
    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.read().await {
                return status;
            }
        }
    }
}

fn is(state: pb::LeaseState) -> impl Fn(&pb::Lease) -> bool {
    move |lease| lease.state() == state
}

async fn get(broker: &Broker, id: &str) -> pb::Lease {
    broker.client().await.get(id).await.unwrap()
}

/// Waits until a lease is so.
async fn until(broker: &Broker, id: &str, wanted: impl Fn(&pb::Lease) -> bool) -> pb::Lease {
    let client = broker.client().await;
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let lease = client.get(id).await.unwrap();
        if wanted(&lease) {
            return lease;
        }
        assert!(Instant::now() < limit, "{lease:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn why(status: &Status) -> (Code, Option<String>) {
    (status.code(), reason(status))
}

#[tokio::test]
async fn a_session_leases_hears_reports_and_releases() {
    let broker = broker(2, 1).await;
    let mut agent = Agent::with_ttl(&broker, Duration::from_secs(20)).await;
    assert!(agent.opened.session_id.starts_with("ses_") && agent.opened.stream == 1, "{:?}", agent.opened);
    assert_eq!((agent.opened.ttl, agent.opened.grace), (span(Duration::from_secs(20)), span(Duration::from_secs(20))));
    let both = agent.calls(vec![Call::Lease(wanted("a")), Call::Lease(wanted("b"))]).await;
    let ids: Vec<String> = both
        .into_iter()
        .map(|answer| match answer {
            Answer::Lease(answer) => answer.lease.unwrap().id,
            other => panic!("{other:?}"),
        })
        .collect();
    for id in &ids {
        let lease = agent.hears(id, is(pb::LeaseState::Active)).await;
        assert_eq!((&lease.session_id, lease.expires_at), (&agent.opened.session_id, None));
    }
    // The same request finds the same lease.
    assert_eq!(agent.lease("a").await.id, ids[0]);
    // A lease of no session is heard of by no session.
    let client = broker.client().await;
    let foreign = tokio::spawn(async move { active(&client, "c").await });
    let report = Call::Report(pb::ReportRequest { lease_id: ids[0].clone(), ..Default::default() });
    let release = |id: &str| {
        let outcome = pb::Outcome::Ok.into();
        Call::Release(pb::ReleaseRequest { lease_id: id.into(), outcome, ..Default::default() })
    };
    let answers =
        agent.calls(vec![report, release(&ids[1]), release("lse_1"), release("lse_00000000000000000000000009")]);
    let answers = answers.await;
    assert!(matches!((&answers[0], &answers[1]), (Answer::Report(_), Answer::Release(_))), "{answers:?}");
    let refusals: Vec<_> = answers[2..]
        .iter()
        .map(|answer| match answer {
            Answer::Refusal(refusal) => why(&Status::from(refusal.clone())),
            other => panic!("{other:?}"),
        })
        .collect();
    let (invalid, unknown) = ("INVALID_REQUEST".to_owned(), "UNKNOWN_LEASE".to_owned());
    assert_eq!(refusals, [(Code::InvalidArgument, Some(invalid)), (Code::NotFound, Some(unknown))]);
    agent.hears(&ids[1], is(pb::LeaseState::Released)).await;
    let foreign = foreign.await.unwrap();
    agent.beats().await;
    assert!(agent.events.iter().all(|lease| lease.id != foreign.id));
}

#[tokio::test]
async fn heartbeats_keep_leases_and_silence_ends_them() {
    let broker = broker(2, 1).await;
    let ttl = Duration::from_secs(1);
    let mut agent = Agent::with_ttl(&broker, ttl).await;
    let lease = agent.lease("a").await.id;
    agent.hears(&lease, is(pb::LeaseState::Active)).await;
    let revision = broker.handle.read(|core, _| core.revision()).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < ttl * 3 {
        agent.beats().await;
        tokio::time::sleep(ttl / 20).await;
    }
    assert_eq!(get(&broker, &lease).await.state(), pb::LeaseState::Active);
    let after = broker.handle.read(|core, _| core.revision()).await.unwrap();
    assert_eq!(after, revision, "heartbeats change no row");
    // The stream is open, and the agent says nothing: as one that is frozen.
    let ended = agent.hears(&lease, |lease| lease.ended_at.is_some()).await;
    assert_eq!(ended.state(), pb::LeaseState::Expired);
    agent.send(pb::SessionRequest::default()).await;
    assert_eq!(why(&agent.end().await), (Code::NotFound, Some("UNKNOWN_SESSION".into())));
}

#[tokio::test]
async fn the_end_of_a_stream_is_doubt_which_a_resume_takes_away() {
    let broker = broker(2, 1).await;
    let mut agent = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
    let lease = agent.lease("a").await.id;
    agent.hears(&lease, is(pb::LeaseState::Active)).await;
    let (session, revision) = (agent.opened.session_id.clone(), agent.revision);
    let begun = Instant::now();
    drop(agent);
    let doubted = until(&broker, &lease, |lease| lease.holder_doubt_since.is_some()).await;
    println!("in doubt {:?} after the end of the stream", begun.elapsed());
    assert_eq!(doubted.state(), pb::LeaseState::Active, "doubt ends nothing");
    let open = pb::SessionOpen { session_id: session.clone(), from_revision: revision, ..Default::default() };
    let mut agent = Agent::open(&broker, open).await.unwrap();
    assert_eq!((&agent.opened.session_id, agent.opened.stream), (&session, 2));
    // The events go on behind the last one, the doubt and its end among them.
    let heard = agent.hears(&lease, |lease| lease.holder_doubt_since.is_none()).await;
    assert_eq!((heard.state(), heard.session_id), (pb::LeaseState::Active, session));
    agent.beats().await;
    assert!(get(&broker, &lease).await.holder_doubt_since.is_none());
}

#[tokio::test]
async fn a_session_that_no_stream_resumes_ends_after_its_grace() {
    let broker = broker(2, 1).await;
    let (ttl, grace) = (span(Duration::from_secs(60)), span(Duration::from_millis(300)));
    let mut agent = Agent::open(&broker, pb::SessionOpen { ttl, grace, ..Default::default() }).await.unwrap();
    let lease = agent.lease("a").await.id;
    agent.hears(&lease, is(pb::LeaseState::Active)).await;
    let session = agent.opened.session_id.clone();
    drop(agent);
    until(&broker, &lease, is(pb::LeaseState::Expired)).await;
    let open = pb::SessionOpen { session_id: session, ..Default::default() };
    let refused = Agent::open(&broker, open).await.err().unwrap();
    assert_eq!(why(&refused), (Code::NotFound, Some("UNKNOWN_SESSION".into())));
}

#[tokio::test]
async fn another_stream_ends_the_one_before_it() {
    let broker = broker(2, 1).await;
    let mut first = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
    let lease = first.lease("a").await.id;
    let open = pb::SessionOpen { session_id: first.opened.session_id.clone(), ..Default::default() };
    let mut second = Agent::open(&broker, open).await.unwrap();
    second.hears(&lease, is(pb::LeaseState::Active)).await;
    first.send(pb::SessionRequest::default()).await;
    assert_eq!(why(&first.end().await), (Code::FailedPrecondition, Some("SESSION_RESUMED".into())));
    second.beats().await;
    assert!(
        get(&broker, &lease).await.holder_doubt_since.is_none(),
        "the end of a stream that was replaced is no doubt"
    );
}

#[tokio::test]
async fn a_lease_of_a_call_of_its_own_goes_into_a_session_and_out_of_it() {
    let broker = broker(2, 1).await;
    let client = broker.client().await;
    let lease = active(&client, "a").await;
    let mut agent = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
    let one = pb::RenewRequest { lease_id: lease.id.clone(), ..Default::default() };
    let several = pb::RenewRequest {
        lease_ids: vec![lease.id.clone(), "lse_00000000000000000000000009".into()],
        ..Default::default()
    };
    let answers = agent.calls(vec![Call::Renew(one), Call::Renew(several)]).await;
    let Answer::Renew(one) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!(one.lease.as_ref().unwrap().session_id, agent.opened.session_id);
    let Answer::Renew(several) = &answers[1] else { panic!("{answers:?}") };
    assert!(matches!(several.results[0].result, Some(pb::renew_result::Result::Lease(_))), "{several:?}");
    assert!(matches!(several.results[1].result, Some(pb::renew_result::Result::Refusal(_))), "{several:?}");
    let renewed = client.renew(&lease.id, None).await.unwrap();
    assert_eq!((renewed.session_id.as_str(), renewed.expires_at.is_some()), ("", true));
}

#[tokio::test]
async fn a_closed_session_leaves_its_leases_their_own_ttl() {
    let broker = broker(2, 1).await;
    let mut agent = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
    let calls = vec![pb::SessionCall { id: 7, call: Some(Call::Lease(wanted("a"))) }];
    agent.send(pb::SessionRequest { calls, close: true, ..Default::default() }).await;
    assert_eq!(agent.end().await.code(), Code::Ok, "the stream ends without an error");
    let Some(Answer::Lease(answer)) = agent.answers.remove(&7) else { panic!("{:?}", agent.answers) };
    let lease = until(&broker, &answer.lease.unwrap().id, is(pb::LeaseState::Active)).await;
    assert_eq!((lease.session_id.as_str(), lease.expires_at.is_some()), ("", true));
    assert!(lease.holder_doubt_since.is_none());
    assert_eq!(broker.handle.read(|core, _| core.sessions().count()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_message_beyond_the_limits_ends_the_stream() {
    let broker = broker(1, 1).await;
    let calls = vec![pb::SessionCall::default(); MAX_SESSION_CALLS + 1];
    for wrong in [
        pb::SessionRequest { calls, ..Default::default() },
        pb::SessionRequest { open: Some(pb::SessionOpen::default()), ..Default::default() },
    ] {
        let mut agent = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
        agent.send(wrong).await;
        assert_eq!(why(&agent.end().await), (Code::InvalidArgument, Some("INVALID_REQUEST".into())));
    }
    let (requests, stream) = mpsc::channel(1);
    requests.send(pb::SessionRequest::default()).await.unwrap();
    let mut stream = client(&broker).await.session(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let refused = stream.message().await.unwrap_err();
    assert_eq!(why(&refused), (Code::InvalidArgument, Some("INVALID_REQUEST".into())));
    assert!(refused.message().contains("open: "), "{refused:?}");
    // A call that says nothing is refused by itself.
    let mut agent = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
    agent.send(pb::SessionRequest { calls: vec![pb::SessionCall { id: 3, call: None }], ..Default::default() }).await;
    while !agent.answers.contains_key(&3) {
        agent.read().await.unwrap();
    }
    assert!(matches!(&agent.answers[&3], Answer::Refusal(refusal) if refusal.code == i32::from(Code::InvalidArgument)));
}

#[tokio::test]
async fn a_server_that_stops_ends_streams_without_doubt() {
    let broker = broker(2, 1).await;
    let mut agent = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
    let lease = agent.lease("a").await.id;
    agent.hears(&lease, is(pb::LeaseState::Active)).await;
    broker.server.shutdown.cancel();
    assert_eq!(why(&agent.end().await), (Code::Unavailable, Some("STOPPING".into())));
    let doubted = broker.handle.read(|core, _| core.sessions().filter(|row| row.doubt.is_some()).count());
    assert_eq!(doubted.await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_follows_names_the_one_that_leads() {
    let broker = broker(1, 1).await;
    let (server, follower) = follower(&broker, RpcLimits::default()).await;
    follower.handle.leadership().follow(leading(&broker.server));
    let mut client = LeaseServiceClient::connect(format!("http://{}", server.address)).await.unwrap();
    let (_requests, stream) = mpsc::channel(1);
    let refused = client.session(ReceiverStream::new(stream)).await.err().unwrap();
    assert_eq!(why(&refused), (Code::Unavailable, Some("NOT_LEADER".into())));
    assert!(refused.message().contains(&broker.server.address.to_string()), "{refused:?}");
    follower.stop().await;
}

/// The engine recovers from its store under the stream: the heartbeats count again after that, and no lease is lost.
#[tokio::test]
async fn a_session_outlives_a_failure_of_the_store() {
    let broker = broker(2, 1).await;
    let mut agent = Agent::with_ttl(&broker, Duration::from_secs(30)).await;
    let lease = agent.lease("a").await.id;
    agent.hears(&lease, is(pb::LeaseState::Active)).await;
    broker.store.inject(crate::store::Fault::NotCommitted);
    let failed = agent.calls(vec![Call::Lease(wanted("b"))]).await;
    assert!(
        matches!(&failed[0], Answer::Refusal(refusal) if refusal.code == i32::from(Code::Unavailable)),
        "{failed:?}"
    );
    let again = agent.lease("b").await.id;
    agent.hears(&again, is(pb::LeaseState::Active)).await;
    agent.beats().await;
    let _ = agent.resume(&broker).await;
}
