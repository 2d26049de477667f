use super::*;
use wharfinger_core::{LeaseSpec, Millis, Selector, Timestamp};

/// A queued lease of holder `h` in pool `p`.
fn lease(number: u128, revision: u64) -> Lease {
    let spec = LeaseSpec {
        principal: "local".into(),
        holder: "h".into(),
        ..LeaseSpec::new("r", "default".into(), Arc::new(Selector::pool("p")), Millis::secs(60))
    };
    Lease { revision: Revision(revision), ..Lease::queued(LeaseId::new(number), spec, Timestamp(0), revision) }
}

fn with(number: u128, revision: u64, holder: &str, asked: Option<&str>, pool: Option<&str>) -> Lease {
    let mut lease = lease(number, revision);
    let spec = Arc::make_mut(&mut lease.spec);
    spec.holder = holder.into();
    spec.selector = Arc::new(Selector { pool: asked.map(Arc::from), ..Selector::default() });
    lease.pool = pool.map(Arc::from);
    lease
}

fn batch(leases: Vec<Lease>) -> Batch {
    let revision = leases.iter().map(|lease| lease.revision).max().unwrap_or_default();
    Batch { revision, leases: leases.into_iter().map(Arc::new).collect(), ..Batch::default() }
}

fn ids(list: &[u128]) -> Filter {
    Filter { leases: list.iter().map(|n| LeaseId::new(*n)).collect(), ..Filter::new(Scope::All) }
}

fn holder(name: &str) -> Filter {
    Filter { holders: [name.into()].into(), ..Filter::new(Scope::All) }
}

fn pools(names: &[&str]) -> Filter {
    Filter { pools: names.iter().map(|n| Arc::from(*n)).collect(), ..Filter::new(Scope::All) }
}

/// Revisions of all that is there; 0 for Lagged.
fn drain(sub: &mut Subscription) -> Vec<u64> {
    std::iter::from_fn(|| sub.try_recv())
        .map(|told| match told {
            WatchEvent::Lease(lease) => lease.revision.0,
            WatchEvent::Lagged => 0,
        })
        .collect()
}

#[test]
fn each_kind_of_filter_gets_its_own_and_nothing_else() {
    let hub = WatchHub::new(Revision(0));
    let mut by_id = hub.subscribe(ids(&[2, 9]), 8);
    let mut by_holder = hub.subscribe(holder("ann"), 8);
    let mut by_pool = hub.subscribe(pools(&["linux"]), 8);
    let mut all = hub.subscribe(Filter::new(Scope::All), 8);

    hub.publish(&batch(vec![
        with(1, 1, "ann", Some("linux"), None),
        with(2, 2, "bob", Some("mac"), None),
        with(3, 3, "bob", None, Some("linux")),
        with(4, 4, "bob", None, None),
    ]));

    assert_eq!(drain(&mut by_id), [2]);
    assert_eq!(drain(&mut by_holder), [1]);
    assert_eq!(drain(&mut by_pool), [1, 3]);
    assert_eq!(drain(&mut all), [1, 2, 3, 4]);
}

#[test]
fn several_kinds_are_anded() {
    let hub = WatchHub::new(Revision(0));
    let mut both = hub.subscribe(Filter { holders: ["ann".into()].into(), ..pools(&["linux", "mac"]) }, 8);
    let mut one = hub.subscribe(Filter { pools: ["linux".into()].into(), ..ids(&[3]) }, 8);

    hub.publish(&batch(vec![
        with(1, 1, "ann", Some("linux"), None),
        with(2, 2, "ann", Some("windows"), None),
        with(3, 3, "bob", Some("mac"), None),
    ]));

    assert_eq!(drain(&mut both), [1]);
    assert!(drain(&mut one).is_empty());
}

#[test]
fn a_lease_that_returns_to_the_queue_is_sent_once_to_each_watcher() {
    let hub = WatchHub::new(Revision(0));
    let mut two = hub.subscribe(pools(&["linux", "mac"]), 8);
    let mut sent_back = with(1, 2, "ann", None, None);
    sent_back.attempts = 1;

    hub.publish(&batch(vec![with(1, 1, "ann", None, Some("linux"))]));
    hub.publish(&batch(vec![sent_back]));

    assert_eq!(drain(&mut two), [1, 2]);
}

#[test]
fn overflow_drops_the_queue_and_says_so_once() {
    let hub = WatchHub::new(Revision(0));
    let mut slow = hub.subscribe(Filter::new(Scope::All), 2);
    let mut quick = hub.subscribe(Filter::new(Scope::All), 8);

    (1..=4).for_each(|n| hub.publish(&batch(vec![lease(n, n as u64)])));
    assert_eq!(drain(&mut slow), [0]);
    hub.publish(&batch(vec![lease(5, 5)]));

    assert_eq!(drain(&mut slow), [5]);
    assert_eq!(drain(&mut quick), [1, 2, 3, 4, 5]);
}

#[test]
fn the_revision_moves_forward_only_and_also_without_leases() {
    let hub = WatchHub::new(Revision(7));
    let told = hub.revision();

    hub.publish(&Batch { revision: Revision(9), ..Batch::default() });
    assert_eq!(*told.borrow(), Revision(9));
    hub.publish(&Batch { revision: Revision(8), ..Batch::default() });
    assert_eq!(*told.borrow(), Revision(9));
}

#[tokio::test]
async fn the_offers_are_there_when_the_revision_is() {
    let hub = WatchHub::new(Revision(0));
    let mut sub = hub.subscribe(Filter::new(Scope::All), 8);
    let mut revision = hub.revision();
    let publisher = tokio::spawn({
        let hub = hub.clone();
        async move { hub.publish(&batch(vec![lease(1, 5)])) }
    });

    revision.wait_for(|r| *r >= Revision(5)).await.unwrap();

    assert_eq!(drain(&mut sub), [5]);
    publisher.await.unwrap();
}

#[test]
fn dropping_a_subscription_frees_everything() {
    let hub = WatchHub::new(Revision(0));
    let subs = [ids(&[1, 2]), holder("ann"), pools(&["a", "b"]), Filter::new(Scope::All)].map(|f| hub.subscribe(f, 4));
    let watchers: Vec<_> = subs.iter().map(|sub| Arc::downgrade(&sub.watcher)).collect();
    assert_eq!(hub.watchers(), 4);

    drop(subs);

    let index = lock(&hub.index);
    assert_eq!(index.watchers, 0);
    assert!(index.by_lease.is_empty() && index.by_holder.is_empty() && index.by_pool.is_empty());
    assert!(index.everything.is_empty());
    assert!(watchers.iter().all(|watcher| watcher.strong_count() == 0));
}

#[tokio::test]
async fn a_waiting_watcher_is_woken_and_a_dropped_wait_loses_nothing() {
    let hub = WatchHub::new(Revision(0));
    let mut sub = hub.subscribe(ids(&[1]), 4);
    {
        let mut wait = std::pin::pin!(sub.recv());
        assert!(futures::poll!(wait.as_mut()).is_pending());
        hub.publish(&batch(vec![lease(1, 1)]));
    }
    assert!(matches!(sub.recv().await, WatchEvent::Lease(lease) if lease.revision == Revision(1)));

    let waiter = tokio::spawn(async move { sub.recv().await });
    tokio::task::yield_now().await;
    hub.publish(&batch(vec![lease(1, 2)]));
    assert!(matches!(waiter.await.unwrap(), WatchEvent::Lease(lease) if lease.revision == Revision(2)));
}

#[test]
fn a_gap_between_two_batches_makes_everyone_catch_up() {
    let hub = WatchHub::new(Revision(3));
    let mut all = hub.subscribe(Filter::new(Scope::All), 4);
    let mut one = hub.subscribe(ids(&[1]), 4);
    hub.publish(&Batch { base: Revision(3), ..batch(vec![lease(1, 4)]) });
    assert_eq!((drain(&mut all), drain(&mut one)), (vec![4], vec![4]));

    // Revision 5 was committed in doubt, and found by a recovery that changed nothing itself.
    hub.publish(&Batch { base: Revision(5), revision: Revision(5), ..Batch::default() });

    assert_eq!((drain(&mut all), drain(&mut one)), (vec![0], vec![0]));
    assert_eq!(*hub.revision().borrow(), Revision(5));
}

#[test]
fn ten_thousand_watchers_of_one_lease_each_get_their_own() {
    let hub = WatchHub::new(Revision(0));
    let mut subs: Vec<_> = (0..10_000).map(|n| hub.subscribe(ids(&[n]), 4)).collect();

    hub.publish(&batch((0..10_000).map(|n| lease(n, n as u64 + 1)).collect()));

    assert!(subs.iter_mut().enumerate().all(|(n, sub)| drain(sub) == [n as u64 + 1]));
}
