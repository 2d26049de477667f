use super::*;
use crate::testing::{Broker, bookmark, lease, told};

async fn revision_of(watch: &mut WatchStream) -> u64 {
    match watch.next().await.unwrap() {
        Watched::Lease(lease) => lease.revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_resumes_after_its_last_revision_when_the_broker_is_unavailable() {
    let mut broker = Broker::start().await;
    let mut watch = broker.client().await.watch(pb::WatchRequest::default());
    let reading = tokio::spawn(async move {
        assert_eq!(watch.next().await.unwrap(), Watched::Synced { revision: 4 });
        assert_eq!(revision_of(&mut watch).await, 5);
        assert_eq!(watch.next().await.unwrap(), Watched::Synced { revision: 6 });
    });

    let (first, tell) = broker.watches.recv().await.unwrap();
    assert_eq!(first.from_revision, 0);
    tell.send(bookmark(4, true)).await.unwrap();
    tell.send(told(lease(5, pb::LeaseState::Active))).await.unwrap();
    tell.send(Err(Status::unavailable("stopping"))).await.unwrap();
    let (second, tell) = broker.watches.recv().await.unwrap();
    assert_eq!((second.from_revision, second.include_ended), (5, false));
    tell.send(bookmark(6, true)).await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn a_watch_survives_a_crash_of_the_broker() {
    let mut broker = Broker::start().await;
    let mut watch = broker.client().await.watch(pb::WatchRequest { from_revision: 7, ..pb::WatchRequest::default() });
    let reading = tokio::spawn(async move { revision_of(&mut watch).await });
    let (first, tell) = broker.watches.recv().await.unwrap();
    assert_eq!(first.from_revision, 7);
    let address = broker.address;
    // The stream's connection lives in a task of its own: ending the stream stands for the process's end.
    drop((tell, broker));

    let mut broker = Broker::start_at(address).await;
    let (second, tell) = broker.watches.recv().await.unwrap();
    assert_eq!(second.from_revision, 7);
    tell.send(told(lease(8, pb::LeaseState::Broken))).await.unwrap();
    assert_eq!(reading.await.unwrap(), 8);
}

#[tokio::test]
async fn silence_of_three_bookmarks_is_a_dead_connection() {
    let mut broker = Broker::start().await;
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    let request = pb::WatchRequest { bookmark_interval: interval, ..pb::WatchRequest::default() };
    let mut watch = broker.client().await.watch(request);
    let reading = tokio::spawn(async move {
        assert_eq!(watch.next().await.unwrap(), Watched::Synced { revision: 3 });
        revision_of(&mut watch).await
    });
    let (_, silent) = broker.watches.recv().await.unwrap();
    silent.send(bookmark(3, true)).await.unwrap();
    let (second, tell) = broker.watches.recv().await.unwrap();
    assert_eq!(second.from_revision, 3);
    tell.send(told(lease(4, pb::LeaseState::Broken))).await.unwrap();
    assert_eq!(reading.await.unwrap(), 4);
    silent.closed().await;
}

#[tokio::test]
async fn out_of_range_starts_from_the_current_state_with_the_ended_and_says_so() {
    let mut broker = Broker::start().await;
    let mut watch = broker.client().await.watch(pb::WatchRequest { from_revision: 7, ..pb::WatchRequest::default() });
    let reading = tokio::spawn(async move {
        assert_eq!(watch.next().await.unwrap(), Watched::Resync);
        assert_eq!(watch.revision(), 0);
        assert_eq!(watch.next().await.unwrap(), Watched::Synced { revision: 2 });
    });
    let (_, tell) = broker.watches.recv().await.unwrap();
    tell.send(Err(Status::out_of_range("too old"))).await.unwrap();
    let (second, tell) = broker.watches.recv().await.unwrap();
    assert_eq!((second.from_revision, second.include_ended), (0, true));
    tell.send(bookmark(2, true)).await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn cut_off_amidst_the_current_state_it_asks_for_the_ended_too() {
    let mut broker = Broker::start().await;
    let mut watch = broker.client().await.watch(pb::WatchRequest::default());
    let reading = tokio::spawn(async move {
        assert_eq!(revision_of(&mut watch).await, 5);
        assert_eq!(watch.next().await.unwrap(), Watched::Resync);
        assert_eq!(watch.next().await.unwrap(), Watched::Synced { revision: 9 });
    });
    let (_, tell) = broker.watches.recv().await.unwrap();
    let mut partial = told(lease(5, pb::LeaseState::Active)).unwrap();
    partial.revision = 0;
    tell.send(Ok(partial)).await.unwrap();
    tell.send(Err(Status::unavailable("stopping"))).await.unwrap();
    let (second, tell) = broker.watches.recv().await.unwrap();
    assert_eq!((second.from_revision, second.include_ended), (0, true));
    tell.send(bookmark(9, true)).await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn an_error_that_a_retry_does_not_mend_is_returned() {
    let mut broker = Broker::start().await;
    let mut watch = broker.client().await.watch(pb::WatchRequest::default());
    let reading = tokio::spawn(async move { watch.next().await });
    let (_, tell) = broker.watches.recv().await.unwrap();
    tell.send(Err(Status::not_found("no lease"))).await.unwrap();
    assert!(matches!(reading.await.unwrap(), Err(ClientError::NotFound(_))));
}
