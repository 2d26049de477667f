//! EC2's lists: what they prove, and what they don't.

use super::world::World;
use crate::cloud::{Event, State};
use crate::fake::Fault;
use crate::reconcile::{Sweep, Watch};
use std::time::Duration;
use tokio::time::advance;
use wharfinger_adapter::{NoticeKind, WallTime};

const TICK: Duration = Duration::from_secs(15);

async fn tick(world: &World, sweep: &mut Sweep) {
    sweep.once(world.adapter.hub()).await;
    advance(TICK).await;
}

#[tokio::test(start_paused = true)]
async fn what_ec2_says_is_over_is_gone_and_nothing_else_is() {
    let world = World::new(|_| {});
    world.cloud.paged(3);
    let mut hosts = Vec::new();
    for n in 0..8 {
        hosts.push(world.serving(&format!("res_{n}")).await);
    }
    let mut sweep = Sweep::default();
    tick(&world, &mut sweep).await;
    assert!(world.books.heard().is_empty());
    world.cloud.becomes(&hosts[7].instance, State::ShuttingDown, Some("Server.SpotInstanceTermination"));
    world.cloud.becomes(&hosts[2].instance, State::Stopping, Some("Server.ScheduledStop"));
    tick(&world, &mut sweep).await;
    let heard = world.books.heard();
    let gone = |id: &str| (id.to_string(), NoticeKind::Gone, "ec2 list");
    assert_eq!(heard, [gone("res_2"), gone("res_7")], "also on the last page");
}

#[tokio::test(start_paused = true)]
async fn no_answer_no_verdict() {
    let world = World::new(|_| {});
    world.cloud.paged(1);
    world.serving("res_1").await;
    world.serving("res_2").await;
    let mut sweep = Sweep::default();
    tick(&world, &mut sweep).await;
    world.cloud.down(true);
    for _ in 0..20 {
        tick(&world, &mut sweep).await;
    }
    world.cloud.down(false);
    for _ in 0..10 {
        // Half a list: the second page is refused.
        world.cloud.fault("DescribeInstances", Fault::Refused("RequestLimitExceeded"));
        tick(&world, &mut sweep).await;
        advance(Duration::from_secs(120)).await;
    }
    assert!(world.books.heard().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_missing_is_asked_for_by_itself_after_a_minute_and_only_then_in_doubt() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    let mut sweep = Sweep::default();
    tick(&world, &mut sweep).await;
    // Missing once, and there again: the count begins anew.
    for _ in 0..3 {
        world.cloud.forgets(&host.instance, true);
        tick(&world, &mut sweep).await;
        tick(&world, &mut sweep).await;
        world.cloud.forgets(&host.instance, false);
        tick(&world, &mut sweep).await;
    }
    assert!(world.books.heard().is_empty());
    world.cloud.forgets(&host.instance, true);
    let mut lists = 0;
    while world.books.told.lock().unwrap().is_empty() {
        tick(&world, &mut sweep).await;
        lists += 1;
        assert!(lists < 10, "never");
    }
    assert!(lists >= 4, "after {lists} lists");
    assert_eq!(world.books.heard(), [("res_1".into(), NoticeKind::ConnectionLost, "ec2 list")], "it is asked itself");
    assert!(world.adapter.hub().is_vanished(&host.instance));
    tick(&world, &mut sweep).await;
    assert!(world.books.heard().is_empty(), "said once");
    world.cloud.forgets(&host.instance, false);
    tick(&world, &mut sweep).await;
    assert!(!world.adapter.hub().is_vanished(&host.instance));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_weather_is_what_ec2_still_lists() {
    let mut world = World::new(|_| {});
    let (taken, kept) = (world.serving("res_1").await, world.serving("res_2").await);
    let ended = world.serving("res_3").await;
    advance(Duration::from_secs(60)).await;
    world.cloud.becomes(&taken.instance, State::Terminated, Some("Server.SpotInstanceTermination"));
    world.cloud.becomes(&ended.instance, State::Terminated, Some("Client.UserInitiatedShutdown"));
    let mut sweep = Sweep::default();
    tick(&world, &mut sweep).await;
    let counts = |world: &World| -> Vec<_> {
        world.adapter.hub().weather().into_iter().map(|line| (line.zone, line.instance_type, line.counts)).collect()
    };
    let before = counts(&world);
    let sum = |of: fn(&crate::Counts) -> u64| before.iter().map(|(_, _, counts)| of(counts)).sum::<u64>();
    assert_eq!((sum(|c| c.launches), sum(|c| c.interruptions), sum(|c| c.lives)), (3, 1, 1), "{before:?}");
    world.books.rows.lock().unwrap().retain(|row| row.resource == "res_2");
    world.restart();
    assert!(counts(&world).is_empty());
    for _ in 0..3 {
        sweep.once(world.adapter.hub()).await;
        assert_eq!(counts(&world), before, "each once");
    }
    let rests = |world: &World| world.adapter.hub().weather().into_iter().filter(|line| line.cool.is_some()).count();
    assert_eq!(rests(&world), 1, "what is left of its rest");
    advance(Duration::from_secs(170)).await;
    assert_eq!(rests(&world), 0);
    // One that was counted by a list is not counted again by its notice, and the other way about.
    world.cloud.becomes(&kept.instance, State::Terminated, Some("Server.SpotInstanceTermination"));
    world.adapter.hub().interrupted(&kept.instance);
    tick(&world, &mut sweep).await;
    world.adapter.hub().interrupted(&kept.instance);
    let now: u64 = counts(&world).iter().map(|(_, _, counts)| counts.interruptions).sum();
    assert_eq!(now, 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_word_does_not_bring_back_what_has_ended() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.cloud.becomes(&host.instance, State::Terminated, None);
    let mut sweep = Sweep::default();
    tick(&world, &mut sweep).await;
    world.cloud.becomes(&host.instance, State::Running, None);
    tick(&world, &mut sweep).await;
    assert_eq!(world.adapter.hub().instance(&host.instance).unwrap().state, State::Terminated);
}

#[tokio::test(start_paused = true)]
async fn scheduled_work_is_told_and_taken_back_and_failing_checks_are_a_risk() {
    let world = World::new(|_| {});
    let (one, two) = (world.serving("res_1").await, world.serving("res_2").await);
    advance(Duration::from_secs(60)).await;
    let mut sweep = Sweep::default();
    tick(&world, &mut sweep).await;
    let mut watch = Watch::default();
    let event = |text: &str| Event {
        id: "event-1".into(),
        code: "instance-retirement".into(),
        not_before_unix_ms: Some(2_000_000_000_000),
        description: text.into(),
    };
    world.cloud.status(&one.instance, vec![event("The instance is on degraded hardware")], false);
    for _ in 0..3 {
        watch.once(world.adapter.hub()).await;
    }
    let at_unix_ms = 2_000_000_000_000;
    assert_eq!(world.books.heard(), [("res_1".into(), NoticeKind::Maintenance(WallTime(at_unix_ms)), "ec2 events")]);
    world.cloud.status(&one.instance, vec![event("[Canceled] The instance is on degraded hardware")], false);
    world.cloud.status(&two.instance, Vec::new(), true);
    watch.once(world.adapter.hub()).await;
    assert_eq!(world.books.heard(), [("res_1".into(), NoticeKind::Cancelled, "ec2 events")]);
    watch.once(world.adapter.hub()).await;
    assert_eq!(world.books.heard(), [("res_2".into(), NoticeKind::AtRisk, "ec2 checks")], "at the second look");
    world.cloud.status(&two.instance, Vec::new(), false);
    world.cloud.fault("DescribeInstanceStatus", Fault::Refused("UnauthorizedOperation"));
    watch.once(world.adapter.hub()).await;
    assert!(world.books.heard().is_empty(), "an error takes nothing back");
    watch.once(world.adapter.hub()).await;
    assert_eq!(world.books.heard(), [("res_2".into(), NoticeKind::Cancelled, "ec2 checks")]);
}
