//! Orphans: instances of the deployment that no row owns.

use super::world::{Notes, World};
use crate::broker::Phase;
use crate::reconcile::Sweep;
use crate::record::Record;
use std::time::Duration;
use tokio::time::advance;

const OURS: [(&str, &str); 3] =
    [("wharfinger:deployment", "ci"), ("wharfinger:resource", "res_gone"), ("wharfinger:attempt", "1")];

async fn sweeps(world: &World, count: usize) {
    let mut sweep = Sweep::default();
    for _ in 0..count {
        sweep.once(world.adapter.account()).await;
        advance(Duration::from_secs(15)).await;
    }
}

fn alive(world: &World, id: &str) -> bool {
    world.cloud.alive().iter().any(|instance| instance.id == id)
}

#[tokio::test(start_paused = true)]
async fn an_orphan_with_our_tag_is_ended_when_it_is_old_enough_and_was_seen_twice() {
    let world = World::new(|_| {});
    let stray = world.cloud.stray(&OURS);
    let foreign = world.cloud.stray(&[("wharfinger:deployment", "other"), ("wharfinger:resource", "res_x")]);
    let untagged = world.cloud.stray(&[]);
    let kept = world.serving("res_1").await;
    sweeps(&world, 3).await;
    assert!(alive(&world, &stray), "a launch that is under way could be as young");
    advance(Duration::from_secs(121)).await;
    sweeps(&world, 1).await;
    assert!(alive(&world, &stray), "one list is not enough");
    sweeps(&world, 2).await;
    assert!(!alive(&world, &stray));
    for other in [&foreign, &untagged, &kept.instance] {
        assert!(alive(&world, other), "{other}");
    }
    assert_eq!(world.cloud.calls("TerminateInstances"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_is_under_way_owns_its_instance_and_an_earlier_attempt_does_not() {
    let world = World::new(|_| {});
    let notes = Notes::default();
    let host = world.launch("res_1", &notes).await.unwrap();
    let launching = Record::read(notes.all.lock().unwrap().first().map(String::as_str)).unwrap().unwrap();
    assert!(matches!(launching, Record::Launching { .. }));
    world.enter("res_1", &launching, Phase::Making);
    advance(Duration::from_secs(600)).await;
    sweeps(&world, 3).await;
    assert!(alive(&world, &host.instance), "the broker will repeat the request whose answer was lost");
    world.enter("res_1", &Record::Over { attempt: 2 }, Phase::Making);
    sweeps(&world, 3).await;
    assert!(!alive(&world, &host.instance));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_database_does_not_empty_the_account() {
    let world = World::new(|config| config.orphans_share = 10);
    for _ in 0..50 {
        world.cloud.stray(&OURS);
    }
    advance(Duration::from_secs(600)).await;
    sweeps(&world, 2).await;
    assert_eq!(world.cloud.alive().len(), 45, "a tenth in one sweep");
    let careful = World::new(|config| config.orphans_dry_run = true);
    careful.cloud.stray(&OURS);
    advance(Duration::from_secs(600)).await;
    sweeps(&careful, 5).await;
    assert_eq!((careful.cloud.alive().len(), careful.cloud.calls("TerminateInstances")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn without_rows_no_instance_is_an_orphan() {
    let world = World::new(|_| {});
    world.cloud.stray(&OURS);
    advance(Duration::from_secs(600)).await;
    world.books.away.store(true, std::sync::atomic::Ordering::Relaxed);
    sweeps(&world, 5).await;
    assert_eq!(world.cloud.alive().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unused_templates_are_deleted() {
    let mut world = World::new(|_| {});
    world.launch("res_1", &Notes::default()).await.unwrap();
    assert_eq!(world.cloud.templates_left(), 1);
    advance(Duration::from_secs(600)).await;
    sweeps(&world, 3).await;
    assert_eq!(world.cloud.templates_left(), 1, "this process uses it");
    world.restart();
    sweeps(&world, 3).await;
    assert_eq!(world.cloud.templates_left(), 0);
    world.launch("res_2", &Notes::default()).await.unwrap();
    assert_eq!(world.cloud.templates_left(), 1, "created again for the next launch");
}
