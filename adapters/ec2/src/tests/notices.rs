//! Messages of the queue: twice, out of order, about unknown instances, before the id is known, and while the broker is away.

use super::world::{Notes, World};
use crate::broker::Phase;
use crate::fake::Fault;
use crate::record::Record;
use crate::sqs;
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
    sqs::receive(world.adapter.account(), "queue").await.unwrap();
}

const END: NoticeKind = NoticeKind::Interruption(WallTime(1_795_834_920_000));

#[tokio::test(start_paused = true)]
async fn a_warning_is_delivered_and_its_place_rests() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.cloud.send(&warning(&host.instance));
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    // Two messages are two notices, which the broker recognizes as one. The statistics count one.
    assert_eq!(world.books.heard(), [("res_1".into(), END, "sqs"), ("res_1".into(), END, "sqs")]);
    assert_eq!(world.cloud.messages_left(), 0);
    let report = world.adapter.account().market_stats();
    assert_eq!(report.iter().map(|line| line.counts.interruptions).sum::<u64>(), 1);
    let cool = report.iter().find(|line| line.counts.interruptions == 1).unwrap();
    assert!(cool.cool.is_some());
    let next = world.serving("res_2").await;
    assert_ne!((next.instance_type, next.zone), (host.instance_type, host.zone), "another place");
}

#[tokio::test(start_paused = true)]
async fn messages_about_strangers_are_deleted_and_unreadable_ones_stay_for_a_person_and_are_counted_once() {
    let world = World::new(|_| {});
    world.cloud.send(&warning("i-0aaaaaaaaaaaaaaaa"));
    world.cloud.send("what is this");
    world.cloud.send(&event("EC2 Something New", &json!({})));
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 1, "the unreadable one");
    for deliveries in 2..=20 {
        assert_eq!(world.cloud.messages_left(), 1, "{deliveries}");
        advance(Duration::from_secs(31)).await;
        receive(&world).await;
    }
    assert_eq!(world.cloud.messages_left(), 0, "not for ever");
    let counters = &world.adapter.account().counters;
    let counted = [&counters.foreign, &counters.poison, &counters.ignored].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counted, [1, 1, 1]);
    assert!(world.books.heard().is_empty());
}

#[tokio::test(start_paused = true)]
async fn raw_and_wrapped_messages_share_a_queue_and_one_message_may_hold_several_events() {
    let world = World::new(|_| {});
    let (one, two) = (world.serving("res_1").await, world.serving("res_2").await);
    let sns = |message: &str| {
        json!({ "Type": "Notification", "MessageId": "x", "TopicArn": "arn:aws:sns:us-east-1:1:ends", "Message": message,
                "Timestamp": "2026-11-28T03:00:00.000Z", "SignatureVersion": "1" })
        .to_string()
    };
    let several = format!("[{},{}]", warning(&one.instance), warning(&two.instance));
    for body in [warning(&one.instance), sns(&warning(&two.instance)), several.clone(), sns(&several)] {
        world.cloud.send(&body);
    }
    world.cloud.send(&json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b" }).to_string());
    world.cloud.send(&sns(&json!({ "Event": "autoscaling:TEST_NOTIFICATION" }).to_string()));
    receive(&world).await;
    let mut heard: Vec<String> = world.books.heard().into_iter().map(|(resource, ..)| resource).collect();
    heard.sort();
    assert_eq!(heard, ["res_1", "res_1", "res_1", "res_2", "res_2", "res_2"]);
    assert_eq!(world.cloud.messages_left(), 0, "tests of services, too");
    // One event of several that the broker could not store keeps the message.
    world.cloud.send(&several);
    world.books.away.store(true, Ordering::Relaxed);
    receive(&world).await;
    assert_eq!((world.books.heard().len(), world.cloud.messages_left()), (0, 1));
    world.books.away.store(false, Ordering::Relaxed);
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((world.books.heard().len(), world.cloud.messages_left()), (2, 0));
    // A subscription that waits is a person's to confirm.
    let waits = json!({ "Type": "SubscriptionConfirmation", "TopicArn": "arn:aws:sns:us-east-1:1:ends", "Token": "x" });
    world.cloud.send(&waits.to_string());
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 1);
    assert_eq!(world.adapter.account().counters.poison.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_about_an_instance_without_a_record_comes_again() {
    let world = World::new(|_| {});
    let under_way = world.adapter.account().launching();
    world.cloud.send(&warning("i-00000000000000063"));
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 1, "the launch that is under way may have this instance");
    drop(under_way);
    let notes = Notes::default();
    let host = world.launch("res_1", &notes).await.unwrap();
    advance(Duration::from_secs(2)).await;
    world.enter("res_1", &Record::Ready { attempt: 1, host: host.clone(), ssh: String::new() }, Phase::Serving);
    let stray = world.cloud.messages_left();
    world.cloud.send(&warning(&host.instance));
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((stray, world.cloud.messages_left()), (1, 0));
    assert_eq!(world.books.heard(), [("res_1".into(), END, "sqs")]);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_rows_have_the_owner_of_an_instance() {
    let mut world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.restart();
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    assert_eq!(world.books.heard(), [("res_1".into(), END, "sqs")]);
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_the_broker_cannot_store_is_delivered_again() {
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
    // The warning comes after the end.
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    let mut heard = world.books.heard();
    heard.sort_by_key(|(_, kind, _)| format!("{kind:?}"));
    assert_eq!(heard, [("res_1".into(), NoticeKind::Gone, "sqs"), ("res_1".into(), END, "sqs")]);
}

#[tokio::test(start_paused = true)]
async fn a_recommendation_without_an_interruption_is_cancelled_after_half_an_hour() {
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
async fn a_hook_is_completed_when_the_host_serves_no_lease_or_when_the_time_is_over() {
    for leaves in [false, true] {
        let mut world = World::new(|_| {});
        let host = world.serving("res_1").await;
        let now = crate::clock::now_ms();
        world.cloud.send(&hook("i-0aaaaaaaaaaaaaaaa", "theirs", now));
        world.cloud.send(&hook(&host.instance, "ours", now));
        receive(&world).await;
        let end = NoticeKind::Interruption(WallTime(now + 120_000));
        assert_eq!(world.books.heard(), [("res_1".into(), end, "sqs hook")], "the holders see the end");
        assert_eq!(
            (world.cloud.hooks_completed().len(), world.cloud.messages_left()),
            (0, 1),
            "a lease is active there"
        );
        if leaves {
            // The lease has ended and the host is removed. The group still waits.
            world.books.rows.lock().unwrap().clear();
            world.adapter.account().forget(&host.instance);
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
        assert_eq!(world.cloud.messages_left(), 1, "the call is repeated");
        advance(Duration::from_secs(31)).await;
        receive(&world).await;
        assert_eq!((world.cloud.hooks_completed(), world.cloud.messages_left()), (vec!["ours".to_string()], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_does_not_answer_is_an_error_and_a_failed_delete_repeats_the_notice() {
    let world = World::new(|_| {});
    let host = world.serving("res_1").await;
    world.cloud.fault("ReceiveMessage", Fault::Unheard);
    assert!(sqs::receive(world.adapter.account(), "queue").await.is_err());
    world.cloud.send(&warning(&host.instance));
    world.cloud.fault("DeleteMessageBatch", Fault::Unheard);
    receive(&world).await;
    assert_eq!(world.books.heard().len(), 1);
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((world.books.heard().len(), world.cloud.messages_left()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_launch_in_the_rows_keeps_messages_about_unknown_instances() {
    let mut world = World::new(|_| {});
    let notes = Notes::default();
    let host = world.launch("res_1", &notes).await.unwrap();
    let launching = Record::read(notes.all.lock().unwrap().first().map(String::as_str)).unwrap().unwrap();
    world.enter("res_1", &launching, Phase::Making);
    world.restart();
    world.cloud.send(&warning(&host.instance));
    receive(&world).await;
    assert_eq!(world.cloud.messages_left(), 1, "the warning came before the launch was repeated");
    world.launch("res_1", &Notes::from(launching.text().unwrap())).await.unwrap();
    advance(Duration::from_secs(31)).await;
    receive(&world).await;
    assert_eq!((world.books.heard(), world.cloud.messages_left()), (vec![("res_1".into(), END, "sqs")], 0));
}
