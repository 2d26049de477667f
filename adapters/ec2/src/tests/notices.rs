//! What comes by the queue: twice, out of order, for strangers, before we know the instance, and when nobody listens.

use super::world::{Notes, World};
use crate::fake::Fault;
use crate::hub::Standing;
use crate::inbox;
use crate::note::Note;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::advance;
use wharfinger_adapter::{NoticeKind, WallTime};

fn event(kind: &str, detail: &serde_json::Value) -> String {
    json!({ "source": "aws.ec2", "detail-type": kind, "time": "2026-11-28T03:00:00Z", "detail": detail }).to_string()
}

fn warning(instance: &str) -> String {
    let detail = json!({ "instance-id": instance, "instance-action": "terminate" });
    event("EC2 Spot Instance Interruption Warning", &detail)
}

fn state(instance: &str, state: &str) -> String {
    event("EC2 Instance State-change Notification", &json!({ "instance-id": instance, "state": state }))
}

async fn receive(world: &World) {
    inbox::receive(world.adapter.hub(), "queue").await.unwrap();
}

const END: NoticeKind = NoticeKind::Interruption(WallTime(1_795_834_920_000));

#[tokio::test(start_paused = true)]
async fn a_warning_is_told_and_its_pool_left_alone_for_a_while() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.cloud.send(&warning(&host.instance));
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    // Twice is told twice: the broker knows that it is the same. The weather counts it once.
    assert_eq!(world.books.heard(), [("res_1".into(), END, "sqs"), ("res_1".into(), END, "sqs")]);
    assert_eq!(world.cloud.messages_left(), 0);
    let report = world.adapter.hub().weather();
    assert_eq!(report.iter().map(|line| line.counts.interruptions).sum::<u64>(), 1);
    let cool = report.iter().find(|line| line.counts.interruptions == 1).unwrap();
    assert!(cool.cool.is_some());
    let next = world.serving("res_2").await;
    assert_ne!((next.instance_type, next.zone), (host.instance_type, host.zone), "not into the pool that is reclaimed");
}

#[tokio::test(start_paused = true)]
async fn strangers_and_poison_are_deleted_and_counted() {
    let world = World::new(|_| {});
    world.cloud.send(&warning("i-0aaaaaaaaaaaaaaaa"));
    world.cloud.send("what is this");
    world.cloud.send(&event("EC2 Something New", &json!({})));
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 0);
    let counters = &world.adapter.hub().counters;
    let counted = [&counters.foreign, &counters.poison, &counters.ignored].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counted, [1, 1, 1]);
    assert!(world.books.heard().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_for_an_instance_that_is_not_written_down_yet_comes_again() {
    let world = World::new(|_| {});
    let under_way = world.adapter.hub().launching();
    world.cloud.send(&warning("i-00000000000000063"));
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 1, "a launch is under way: it may be the one");
    drop(under_way);
    let notes = Notes::default();
    let host = world.launch("res_1", &notes).await.unwrap();
    advance(Duration::from_secs(2)).await;
    world.enter("res_1", &Note::Ready { attempt: 1, host: host.clone(), ssh: String::new() }, Standing::Serving);
    let stray = world.cloud.messages_left();
    world.cloud.send(&warning(&host.instance));
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((stray, world.cloud.messages_left()), (1, 0));
    assert_eq!(world.books.heard(), [("res_1".into(), END, "sqs")]);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_books_tell_whose_an_instance_is() {
    let mut world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.restart();
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    assert_eq!(world.books.heard(), [("res_1".into(), END, "sqs")]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_can_not_write_it_down_is_told_again() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.books.away.store(true, Ordering::Relaxed);
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 1);
    world.books.away.store(false, Ordering::Relaxed);
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((world.books.heard().len(), world.cloud.messages_left()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn states_that_end_are_ends_and_others_are_not() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    for name in ["pending", "running"] {
        world.cloud.send(&state(&host.instance, name));
    }
    receive(&world).await;
    assert!(world.books.heard().is_empty());
    world.cloud.send(&state(&host.instance, "terminated"));
    // Late, out of order: whoever is told twice knows.
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    let mut heard = world.books.heard();
    heard.sort_by_key(|(_, kind, _)| format!("{kind:?}"));
    assert_eq!(heard, [("res_1".into(), NoticeKind::Gone, "sqs"), ("res_1".into(), END, "sqs")]);
}

#[tokio::test(start_paused = true)]
async fn a_recommendation_that_nothing_follows_is_over_after_half_an_hour() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.cloud.send(&event("EC2 Instance Rebalance Recommendation", &json!({ "instance-id": host.instance })));
    receive(&world).await;
    assert_eq!(world.books.heard(), [("res_1".into(), NoticeKind::AtRisk, "sqs rebalance")]);
    tokio::time::sleep(Duration::from_secs(1801)).await;
    assert_eq!(world.books.heard(), [("res_1".into(), NoticeKind::Cancelled, "sqs rebalance")]);
}

fn hook(instance: &str, token: &str, time: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(time).unwrap().to_string();
    let detail = json!({ "LifecycleActionToken": token, "AutoScalingGroupName": "farm", "LifecycleHookName": "drain",
                         "EC2InstanceId": instance, "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING" });
    json!({ "source": "aws.autoscaling", "detail-type": "EC2 Instance-terminate Lifecycle Action", "time": time,
            "detail": detail })
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn a_group_that_ends_a_host_is_let_when_nobody_works_there_or_when_the_time_is_over() {
    for leaves in [false, true] {
        let mut world = World::new(|_| {});
        let host = world.serving("res_1").await;
        let now = crate::hub::now_ms();
        world.cloud.send(&hook("i-0aaaaaaaaaaaaaaaa", "theirs", now));
        world.cloud.send(&hook(&host.instance, "ours", now));
        receive(&world).await;
        let end = NoticeKind::Interruption(WallTime(now + 120_000));
        assert_eq!(world.books.heard(), [("res_1".into(), end, "sqs hook")], "the holders are told");
        assert_eq!((world.cloud.hooks_completed().len(), world.cloud.messages_left()), (0, 1), "somebody works there");
        if leaves {
            // The holder is done, the host is given back and forgotten; the group still waits.
            world.books.rows.lock().unwrap().clear();
            world.adapter.hub().forget(&host.instance);
        } else {
            world.restart();
            advance(Duration::from_secs(60)).await;
            receive(&world).await;
            assert!(world.cloud.hooks_completed().is_empty());
            advance(Duration::from_secs(60)).await;
        }
        advance(Duration::from_secs(31)).await;
        world.cloud.fault("CompleteLifecycleAction", Fault::Unheard);
        receive(&world).await;
        assert_eq!(world.cloud.messages_left(), 1, "it is told again");
        advance(Duration::from_secs(31)).await;
        receive(&world).await;
        assert_eq!((world.cloud.hooks_completed(), world.cloud.messages_left()), (vec!["ours".to_string()], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_away_says_so_and_a_delete_that_fails_only_repeats() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.cloud.fault("ReceiveMessage", Fault::Unheard);
    assert!(inbox::receive(world.adapter.hub(), "queue").await.is_err());
    world.cloud.send(&warning(&host.instance));
    world.cloud.fault("DeleteMessageBatch", Fault::Unheard);
    receive(&world).await;
    assert_eq!(world.books.heard().len(), 1);
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((world.books.heard().len(), world.cloud.messages_left()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_launch_in_the_books_keeps_what_may_be_about_it() {
    let mut world = World::new(|_| {});
    let notes = Notes::default();
    let host = world.launch("res_1", &notes).await.unwrap();
    let launching = Note::read(notes.all.lock().unwrap().first().map(String::as_str)).unwrap().unwrap();
    world.enter("res_1", &launching, Standing::Making);
    world.restart();
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 1, "the launch is not repeated yet, and its instance is warned already");
    world.launch("res_1", &Notes::from(launching.text().unwrap())).await.unwrap();
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((world.books.heard(), world.cloud.messages_left()), (vec![("res_1".into(), END, "sqs")], 0));
}
