//! Tests of elections: one server leads, and never two.

use super::testing::proxy::{Mode, Proxy};
use super::testing::{of, settings, shared};
use super::*;
use crate::store::samples::Samples;
use crate::store::{Candidate, Election, Lead};
use std::time::Duration;
use tokio::time::Instant;

fn candidate(name: &str, ttl: Duration) -> Candidate {
    Candidate { holder: name.into(), address: format!("http://{name}:1"), ttl }
}

fn batch(base: u64) -> Batch {
    Batch {
        base: Revision(base),
        revision: Revision(base + 1),
        leases: vec![Arc::new(Samples::new(base + 1).lease(0, base + 1))],
        ..Batch::default()
    }
}

/// Makes one attempt, which must win.
async fn wins(store: &PostgresStore, who: &Candidate) -> Lead {
    match store.campaign(who).await.unwrap() {
        Election::Won(lead) => lead,
        Election::Lost(leader) => panic!("{} lost to {leader:?}", who.holder),
    }
}

/// Repeats attempts until one wins.
async fn until_won(store: &PostgresStore, who: &Candidate) -> Lead {
    let start = Instant::now();
    loop {
        if let Ok(Election::Won(lead)) = store.campaign(who).await {
            return lead;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{} never leads", who.holder);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The end of the lead in the database, in milliseconds.
async fn ends_at(conn: &mut sqlx::postgres::PgConnection) -> i64 {
    let row = sqlx::query(
        "SELECT CASE WHEN isfinite(until) THEN (extract(epoch FROM until) * 1000)::bigint ELSE 0 END FROM leader",
    )
    .fetch_one(conn)
    .await
    .unwrap();
    sqlx::Row::get(&row, 0)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

const LONG: Duration = Duration::from_secs(120);

#[tokio::test]
async fn one_of_many_leads_and_the_others_know_where() {
    let Some(settings) = settings().await else { return };
    let mut attempts = tokio::task::JoinSet::new();
    for n in 0..8 {
        let settings = settings.clone();
        attempts.spawn(async move {
            let store = PostgresStore::open(&settings).await.unwrap();
            let who = candidate(&format!("s{n}"), LONG);
            let first = store.campaign(&who).await.unwrap();
            (store, who, first)
        });
    }
    let all = attempts.join_all().await;
    let winners: Vec<_> = all.iter().filter(|(_, _, first)| matches!(first, Election::Won(_))).collect();
    assert_eq!(winners.len(), 1);
    let address = winners[0].1.address.clone();
    for (store, who, first) in &all {
        if matches!(first, Election::Lost(_)) {
            let Election::Lost(Some(leader)) = store.campaign(who).await.unwrap() else {
                panic!("{} won too", who.holder)
            };
            assert_eq!(leader.address, address);
            assert!(leader.left > LONG / 2 && leader.left <= LONG, "{:?}", leader.left);
        }
    }
}

#[tokio::test]
async fn a_leader_commits_and_one_that_was_deposed_does_not() {
    let Some(settings) = settings().await else { return };
    let (a, b) = (PostgresStore::open(&settings).await.unwrap(), PostgresStore::open(&settings).await.unwrap());
    let first = wins(&a, &candidate("a", LONG)).await;
    a.commit(&batch(0), first.epoch()).await.unwrap();
    a.resign(&candidate("a", LONG), &first).await;
    assert!(!first.holds());
    let second = wins(&b, &candidate("b", LONG)).await;
    assert!(second.epoch() > first.epoch());
    let refused = a.commit(&batch(1), first.epoch()).await;
    assert!(matches!(refused, Err(CommitError::Deposed { current }) if current == second.epoch()), "{refused:?}");
    b.commit(&batch(1), second.epoch()).await.unwrap();
    assert!(second.holds());
    // A server without a cluster takes the store over from any leader.
    let forced = a.acquire().await.unwrap();
    assert!(forced > second.epoch());
    assert!(matches!(b.commit(&batch(2), second.epoch()).await, Err(CommitError::Deposed { .. })));
    a.commit(&batch(2), forced).await.unwrap();
}

#[tokio::test]
async fn a_lead_is_renewed_for_as_long_as_its_server_lives() {
    let Some(settings) = settings().await else { return };
    let (a, b) = (PostgresStore::open(&settings).await.unwrap(), PostgresStore::open(&settings).await.unwrap());
    let ttl = Duration::from_secs(6);
    let lead = wins(&a, &candidate("a", ttl)).await;
    let mut conn = a.inner.database.connect(Purpose::Read).await.unwrap();
    let first = ends_at(&mut conn).await;
    let start = Instant::now();
    // The renewals move the end of the lead by two times to live.
    while ends_at(&mut conn).await < first + millis(ttl * 2) {
        assert!(matches!(b.campaign(&candidate("b", ttl)).await.unwrap(), Election::Lost(Some(_))));
        assert!(lead.holds());
        assert!(start.elapsed() < LONG, "the lead is not renewed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    a.resign(&candidate("a", ttl), &lead).await;
    wins(&b, &candidate("b", ttl)).await;
}

/// A leader that is cut off from the database stops leading before another server can lead.
#[tokio::test]
async fn a_leader_that_cannot_renew_stops_before_another_leads() {
    let Some(cluster) = shared().await else { return };
    let proxy = Proxy::start(cluster.port());
    let direct = of(cluster.url());
    let through = PostgresSettings {
        url: direct.url.replace(&format!(":{}/", cluster.port()), &format!(":{}/", proxy.port())),
        ..direct.clone()
    };
    let other = PostgresStore::open(&direct).await.unwrap();
    let store = PostgresStore::open(&through).await.unwrap();
    let ttl = Duration::from_secs(3);
    let mut revision = 0;
    for (round, mode) in [Mode::Hold, Mode::HoldReplies, Mode::Refuse].into_iter().enumerate() {
        let me = candidate(&format!("me{round}"), ttl);
        let lead = until_won(&store, &me).await;
        store.commit(&batch(revision), lead.epoch()).await.unwrap();
        revision += 1;
        proxy.set(mode);
        if mode == Mode::Refuse {
            proxy.cut_and(mode);
        }
        let successor = until_won(&other, &candidate("other", ttl)).await;
        assert!(!lead.holds(), "{mode:?}: two lead");
        tokio::time::timeout(Duration::from_secs(60), lead.lost()).await.expect("and it is told");
        other.commit(&batch(revision), successor.epoch()).await.unwrap();
        revision += 1;
        proxy.cut_and(Mode::Pass);
        let refused = store.commit(&batch(revision), lead.epoch()).await;
        assert!(matches!(refused, Err(CommitError::Deposed { .. })), "{mode:?}: {refused:?}");
        assert!(!lead.holds(), "what is over stays over");
        other.resign(&candidate("other", ttl), &successor).await;
    }
}

/// An attempt wins and its answer is lost. The same server then takes its own row at once, without waiting for the time to live. An
/// older attempt that arrives late changes nothing.
#[tokio::test]
async fn a_lost_answer_costs_no_time_to_live() {
    let Some(settings) = settings().await else { return };
    let (a, b) = (PostgresStore::open(&settings).await.unwrap(), PostgresStore::open(&settings).await.unwrap());
    let me = candidate("a", LONG);
    let take = |epoch: i64| sqlx::query(sql::TAKE).bind("a").bind("http://a:1").bind(120_000_i64).bind(epoch);
    let mut conn = a.inner.database.connect(Purpose::Read).await.unwrap();
    assert!(take(0).fetch_optional(&mut conn).await.unwrap().is_some(), "the answer that was lost");
    assert!(matches!(b.campaign(&candidate("b", LONG)).await.unwrap(), Election::Lost(Some(_))));
    let lead = wins(&a, &me).await;
    a.commit(&batch(0), lead.epoch()).await.unwrap();
    assert!(take(0).fetch_optional(&mut conn).await.unwrap().is_none(), "an older attempt comes late");
    a.commit(&batch(1), lead.epoch()).await.unwrap();
    assert!(lead.holds());
    let offset = a.clock_offset().expect("the clocks were compared").0;
    assert!(offset.abs() < 5000, "one machine has one clock: {offset} ms");
}

/// An earlier commit holds the writer for longer than an attempt may take. The lead is renewed meanwhile, and then given back.
#[tokio::test]
async fn a_writer_that_is_stuck_costs_no_time_to_live() {
    let Some(settings) = settings().await else { return };
    let (a, b) = (PostgresStore::open(&settings).await.unwrap(), PostgresStore::open(&settings).await.unwrap());
    let ttl = Duration::from_secs(6);
    let mut conn = b.inner.database.connect(Purpose::Read).await.unwrap();
    let stuck = a.inner.writer.lock().await;
    let other = a.clone();
    let campaign = tokio::spawn(async move { other.campaign(&candidate("a", ttl)).await.map(drop) });
    let start = Instant::now();
    let wait_for = async |conn: &mut _, what: &str, more_than: i64| {
        while ends_at(conn).await <= more_than {
            assert!(start.elapsed() < LONG, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ends_at(conn).await
    };
    let first = wait_for(&mut conn, "it never leads", 0).await;
    wait_for(&mut conn, "the lead is not renewed", first).await;
    let refused = campaign.await.unwrap();
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    wins(&b, &candidate("b", LONG)).await;
    drop(stuck);
}
