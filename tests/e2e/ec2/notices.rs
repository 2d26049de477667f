//! An instance is taken away: announced by the queue, by its metadata service, by EC2's lists, or not at all.

use super::account::{Cloud, Pools, skip};
use serde_json::json;
use std::time::{Duration, SystemTime};
use wharfinger::pb::{Lease, LeaseState, ResourceState};

/// A lease of a copy with `replace`, its host and the host's instance.
struct Scene {
    cloud: Cloud,
    lease: Lease,
    host: String,
    instance: String,
}

impl Scene {
    fn new(pools: Pools) -> Self {
        let cloud = Cloud::start(pools);
        let lease = cloud.farm.active(&cloud.farm.ask("copies", "builder", true).id).lease;
        let host = cloud.host_of(&lease.resource_id);
        let instance = cloud.instance_of(&host);
        Self { cloud, lease, host, instance }
    }

    /// Waits until the holder sees the end, and returns its time. `pace.rs` measures how soon the holder sees it.
    fn ends(&self, since: SystemTime) -> SystemTime {
        let told = self.cloud.farm.told(&self.lease.id, since, "its end", |lease| lease.ends_at.is_some());
        assert_eq!(told.lease.state(), LeaseState::Active, "it works on until then");
        SystemTime::try_from(told.lease.ends_at.unwrap()).unwrap()
    }

    /// Waits until the lease is broken and its successor is active on another instance.
    fn moves(&self, since: SystemTime) -> Lease {
        let farm = &self.cloud.farm;
        let broken = farm.told(&self.lease.id, since, "that it is broken", |lease| lease.state() == LeaseState::Broken);
        let successor = farm.active(&broken.lease.replacement_id).lease;
        assert_ne!(self.cloud.instance_of(&self.cloud.host_of(&successor.resource_id)), self.instance);
        successor
    }

    /// Checks that the lease stays active until the broker has made this number of further lists.
    fn stays(&self, lists: usize) {
        self.cloud.throughout_lists(lists, |farm| {
            let lease = farm.get(&self.lease.id);
            assert_eq!(
                (lease.state(), lease.fencing_token),
                (LeaseState::Active, self.lease.fencing_token),
                "{lease:?}"
            );
        });
    }
}

#[test]
fn warned_by_the_queue_it_is_replaced_before_it_is_missed() {
    if skip("warned_by_the_queue_it_is_replaced_before_it_is_missed") {
        return;
    }
    let scene = Scene::new(Pools::default());
    let since = SystemTime::now();
    // SQS may deliver a message twice. One is about another instance.
    scene.cloud.account.warn("i-0aaaaaaaaaaaaaaaa");
    scene.cloud.account.warn(&scene.instance);
    scene.cloud.account.warn(&scene.instance);
    let warned = SystemTime::now();
    let end = scene.ends(since);
    // Two minutes from the warning, which has its time in whole seconds.
    let (first, last) = (since + Duration::from_secs(118), warned + Duration::from_secs(121));
    assert!((first..=last).contains(&end), "{end:?} is not in {first:?} to {last:?}");
    // The successor's host is launched at the warning, while the lease is active.
    scene.cloud.until_alive(2);
    assert_eq!(scene.cloud.farm.get(&scene.lease.id).state(), LeaseState::Active);
    scene.cloud.farm.server.wait_for_state("spot", "READY", 1);
    scene.cloud.account.take_away(&scene.instance);
    let successor = scene.moves(since);
    assert_eq!(scene.cloud.account.launches().len(), 2, "one for one");
    // A warning after the end changes nothing.
    scene.cloud.account.warn(&scene.instance);
    scene.cloud.throughout_lists(3, |farm| {
        assert_eq!(farm.get(&successor.id).state(), LeaseState::Active);
    });
    scene.cloud.farm.server.wait("an empty queue", || {
        let left = scene.cloud.account.chaos("queue", &json!({}));
        (left["messages"] == 0).then_some(())
    });
}

#[test]
fn a_queue_takes_raw_events_and_those_of_an_sns_topic() {
    if skip("a_queue_takes_raw_events_and_those_of_an_sns_topic") {
        return;
    }
    let scene = Scene::new(Pools::default());
    // Test messages of services are deleted; a subscription waits for a person.
    let account = &scene.cloud.account;
    for body in [
        json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b" }),
        json!({ "Service": "AWS Auto Scaling", "Event": "autoscaling:TEST_NOTIFICATION" }),
        json!({ "Type": "SubscriptionConfirmation", "TopicArn": "arn:aws:sns:us-east-1:123456789012:ends", "Token": "x" }),
    ] {
        account.chaos("send", &json!({ "body": body.to_string() }));
    }
    scene
        .cloud
        .farm
        .server
        .wait("the tests' end", || (account.chaos("queue", &json!({}))["messages"] == 1).then_some(()));
    let log = scene.cloud.farm.server.log();
    assert!(log.contains("arn:aws:sns:us-east-1:123456789012:ends") && log.contains("aws sns subscribe"), "{log}");
    let since = SystemTime::now();
    account.warn_by_topic(&scene.instance);
    scene.ends(since);
    scene.cloud.until_alive(2);
    scene.cloud.account.take_away(&scene.instance);
    let successor = scene.moves(since);
    // The second warning comes without the topic.
    let host = scene.cloud.host_of(&successor.resource_id);
    let instance = scene.cloud.instance_of(&host);
    let scene = Scene { lease: successor, host, instance, ..scene };
    let since = SystemTime::now();
    scene.cloud.account.warn(&scene.instance);
    scene.ends(since);
}

/// A pool of one host has two for the time of the warning.
#[test]
fn a_full_pool_has_the_next_one_before_the_end_of_the_last() {
    if skip("a_full_pool_has_the_next_one_before_the_end_of_the_last") {
        return;
    }
    let cloud = Cloud::start(Pools { spot: "max = 1", ..Pools::default() });
    let farm = &cloud.farm;
    let lease = farm.active(&farm.ask("spot", "builder", true).id).lease;
    let first = cloud.instance_of(&lease.resource_id);
    cloud.account.warn(&first);
    cloud.until_alive(2);
    farm.server.wait_for_state("spot", "READY", 1);
    assert_eq!(farm.get(&lease.id).state(), LeaseState::Active, "two minutes are left to its holder");
    let since = SystemTime::now();
    cloud.account.take_away(&first);
    let broken = farm.told(&lease.id, since, "that it is broken", |lease| lease.state() == LeaseState::Broken);
    let next = farm.active(&broken.lease.replacement_id);
    assert_eq!(cloud.until_alive(1)[0].id, cloud.instance_of(&next.lease.resource_id));
    assert_eq!(cloud.account.launches().len(), 2, "one for one");
}

#[test]
fn without_a_queue_the_host_itself_is_asked() {
    if skip("without_a_queue_the_host_itself_is_asked") {
        return;
    }
    let scene = Scene::new(Pools { queue: false, ..Pools::default() });
    let since = SystemTime::now();
    let risk = "events/recommendations/rebalance";
    let text = json!({ "noticeTime": "2026-11-28T03:00:00Z" }).to_string();
    scene.cloud.account.chaos("announce", &json!({ "id": scene.instance, "path": risk, "text": text }));
    scene.cloud.farm.server.wait("the risk", || {
        let events = scene.cloud.farm.events(0);
        events.iter().any(|event| event.kind == "resource.at-risk" && event.resource_id == scene.host).then_some(())
    });
    assert!(scene.cloud.farm.get(&scene.lease.id).ends_at.is_none(), "a risk is no end");
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 90;
    let at = scene.cloud.account.chaos("time", &json!({ "unix": seconds }));
    let text = json!({ "action": "terminate", "time": at["text"] }).to_string();
    let since_end = SystemTime::now();
    let path = "spot/instance-action";
    scene.cloud.account.chaos("announce", &json!({ "id": scene.instance, "path": path, "text": text }));
    let end = scene.ends(since_end);
    let off = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().abs_diff(seconds);
    assert!(off <= 3, "{off} s off");
    scene.cloud.until_alive(2);
    scene.cloud.account.take_away(&scene.instance);
    scene.moves(since);
}

#[test]
fn unannounced_the_lists_or_the_silence_tell() {
    if skip("unannounced_the_lists_or_the_silence_tell") {
        return;
    }
    // A call to EC2 stops the instance, and its sshd ends.
    let scene = Scene::new(Pools { queue: false, ..Pools::default() });
    let since = SystemTime::now();
    let state = json!({ "id": scene.instance, "name": "stopping", "reason": "Client.UserInitiatedShutdown" });
    scene.cloud.account.chaos("state", &state);
    let successor = scene.moves(since);
    let causes = scene.cloud.farm.get(&scene.lease.id).causes;
    let of_host = causes.iter().find(|cause| cause.subject == scene.host);
    assert!(of_host.is_some_and(|cause| cause.reason == "RESOURCE_GONE"), "{causes:?}");

    // One list lacks the instance: nothing happens.
    let host = scene.cloud.host_of(&successor.resource_id);
    let instance = scene.cloud.instance_of(&host);
    let scene = Scene { lease: successor, host, instance, ..scene };
    scene.cloud.account.chaos("vanish", &json!({ "id": scene.instance }));
    // The second list began without the instance.
    scene.stays(2);
    scene.cloud.account.chaos("unvanish", &json!({ "id": scene.instance }));
    scene.stays(4);

    // All lists lack the instance, and its sshd answers: the lease stays active.
    scene.cloud.account.chaos("vanish", &json!({ "id": scene.instance }));
    scene.stays(9);
    // Then its sshd is silent, too.
    let since = SystemTime::now();
    scene.cloud.account.chaos("kill_for_good", &json!({ "id": scene.instance }));
    scene.moves(since);
}

/// A dead machine: no list has it, and its connections get no answer.
#[test]
fn one_that_hangs_and_is_in_no_list_is_over() {
    if skip("one_that_hangs_and_is_in_no_list_is_over") {
        return;
    }
    let scene = Scene::new(Pools { queue: false, ssh: "connect_timeout_ms = 2000", ..Pools::default() });
    let since = SystemTime::now();
    scene.cloud.account.chaos("vanish", &json!({ "id": scene.instance }));
    scene.cloud.account.chaos("stop_ssh", &json!({ "id": scene.instance }));
    scene.moves(since);
}

#[test]
fn a_reboot_ends_what_ran_there() {
    if skip("a_reboot_ends_what_ran_there") {
        return;
    }
    let scene = Scene::new(Pools::default());
    let since = SystemTime::now();
    scene.cloud.account.chaos("reboot", &json!({ "id": scene.instance }));
    scene.moves(since);
    let events = scene.cloud.farm.events(0);
    assert!(events.iter().any(|event| event.detail.contains("REBOOTED")), "{events:#?}");
}

#[test]
fn a_recommendation_breaks_nothing_and_sends_new_work_elsewhere() {
    if skip("a_recommendation_breaks_nothing_and_sends_new_work_elsewhere") {
        return;
    }
    let scene = Scene::new(Pools { spot: "max = 3\nslots = 2", ..Pools::default() });
    scene.cloud.account.event("EC2 Instance Rebalance Recommendation", &json!({ "instance-id": scene.instance }));
    scene.cloud.farm.server.wait("the risk", || {
        let events = scene.cloud.farm.events(0);
        events.iter().any(|event| event.kind == "resource.at-risk" && event.resource_id == scene.host).then_some(())
    });
    // The host has a free slot, and the broker launches another.
    let other = scene.cloud.farm.active(&scene.cloud.farm.ask("spot", "other", false).id).lease;
    assert_ne!(other.resource_id, scene.host);
    scene.stays(3);
    assert_eq!(scene.cloud.farm.resource(&scene.host).state(), ResourceState::Ready);
}

#[test]
fn planned_maintenance_is_read_from_health_events_and_the_status_and_called_off() {
    if skip("planned_maintenance_is_read_from_health_events_and_the_status_and_called_off") {
        return;
    }
    let scene = Scene::new(Pools { spot: "max = 1", ..Pools::default() });
    let since = SystemTime::now();
    let entities = json!([{ "entityValue": "i-0aaaaaaaaaaaaaaaa" }, { "entityValue": scene.instance }]);
    let event = |status: &str| {
        json!({ "service": "EC2", "eventTypeCategory": "scheduledChange", "statusCode": status,
                "eventTypeCode": "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED",
                "startTime": "2037-06-05T15:10:09Z", "affectedEntities": entities })
    };
    scene.cloud.account.event("AWS Health Event", &event("upcoming"));
    scene.ends(since);
    let since = SystemTime::now();
    scene.cloud.account.event("AWS Health Event", &event("closed"));
    scene.cloud.farm.told(&scene.lease.id, since, "that it is called off", |lease| lease.ends_at.is_none());

    let since = SystemTime::now();
    let scheduled = json!([{ "Code": "instance-retirement", "Description": "degraded hardware",
                             "InstanceEventId": "instance-event-1", "NotBefore": "2037-06-05T15:10:09.000Z" }]);
    scene.cloud.account.chaos("events", &json!({ "id": scene.instance, "events": scheduled }));
    scene.ends(since);
    let since = SystemTime::now();
    scene.cloud.account.chaos("events", &json!({ "id": scene.instance, "events": [] }));
    scene.cloud.farm.told(&scene.lease.id, since, "that it is called off", |lease| lease.ends_at.is_none());
    scene.cloud.farm.until(&scene.host, ResourceState::Ready);
    scene.stays(3);
}

#[test]
fn an_auto_scaling_group_may_end_a_host_without_leases() {
    if skip("an_auto_scaling_group_may_end_a_host_without_leases") {
        return;
    }
    let cloud = Cloud::start(Pools::default());
    let farm = &cloud.farm;
    let lease = farm.active(&farm.ask("spot", "builder", false).id).lease;
    let instance = cloud.instance_of(&lease.resource_id);
    let hook = |instance: &str| {
        json!({ "LifecycleActionToken": "87654321-4321-4321-4321-210987654321", "AutoScalingGroupName": "farm",
                "LifecycleHookName": "drain", "EC2InstanceId": instance,
                "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING" })
    };
    let since = SystemTime::now();
    let kind = "EC2 Instance-terminate Lifecycle Action";
    cloud.account.event(kind, &hook("i-0aaaaaaaaaaaaaaaa"));
    cloud.account.event(kind, &hook(&instance));
    farm.told(&lease.id, since, "its end", |lease| lease.ends_at.is_some());
    let let_go = || -> Vec<Vec<String>> {
        let calls = cloud.account.calls().into_iter();
        calls.filter(|call| call.action == "CompleteLifecycleAction").map(|call| call.instances).collect()
    };
    assert!(let_go().is_empty(), "somebody works there");
    farm.release(&lease.id, wharfinger::pb::Outcome::Ok);
    // The queue delivers the message again after half a minute.
    farm.server.wait("leave to end it", || (!let_go().is_empty()).then_some(()));
    assert_eq!(let_go(), [[instance]], "the stranger's hook is not ours to complete");
}
