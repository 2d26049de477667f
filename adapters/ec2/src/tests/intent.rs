//! Invariants 5 and 12 of the design: a request is stored before it is made, and launches one instance wherever a call is cut off.

use super::world::{Notes, World, job};
use crate::clock::now_ms;
use crate::cloud::{LISTED_AFTER_MS, Launch};
use crate::fake::Fault;
use crate::provision;
use crate::record::{KeyStage, Record};
use async_trait::async_trait;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{advance, timeout};
use wharfinger_adapter::{Adapter, Failure, Journal};

/// Requests, each with the stored request at that time and the age of its record in milliseconds.
type Asked = Vec<(Launch, Option<Launch>, Option<i64>)>;

fn one_place(config: &mut crate::Config) {
    config.types.truncate(1);
    config.subnets.pop_last();
}

fn world(fleet: bool) -> World {
    World::new(|config| {
        if !fleet {
            one_place(config);
        }
    })
}

fn launching(note: Option<String>) -> Option<Launch> {
    match Record::read(note.as_deref()).unwrap() {
        Some(Record::Launching { launch, .. }) => Some(*launch),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_5_what_is_bought_was_written_down_before_just_as_it_is_asked_for() {
    for fleet in [false, true] {
        let world = world(fleet);
        let notes = Arc::new(Notes::default());
        let asked: Arc<Mutex<Asked>> = Arc::default();
        let (books, seen) = (notes.clone(), asked.clone());
        world.cloud.witness(move |launch| {
            let late = match books.note() {
                Some(Record::Launching { asked_ms, .. }) => asked_ms.map(|asked_ms| now_ms() - asked_ms),
                _ => None,
            };
            seen.lock().unwrap().push((launch.clone(), launching(books.last()), late));
        });
        // The second attempt and each repetition follow the rule, too. A throttle makes a repetition wait.
        for fault in [
            Fault::Lost,
            Fault::Refused("RequestLimitExceeded"),
            Fault::Refused("InsufficientInstanceCapacity"),
            Fault::Unheard,
        ] {
            world.cloud.fault(if fleet { "CreateFleet" } else { "RunInstances" }, fault);
        }
        let _ = timeout(Duration::from_secs(60), world.launch("res_1", &notes)).await;
        let asked = asked.lock().unwrap();
        assert!(asked.len() >= 3, "{} requests", asked.len());
        for (launch, written, late) in asked.iter() {
            assert_eq!(*late, Some(0), "the note has the time of the request");
            let written = written.clone().expect("a request that was not stored");
            let told = |launch: &Launch| -> serde_json::Value {
                serde_json::from_str(launch.user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap()
            };
            let (mut asked, kept) = (told(launch), told(&written));
            let (secret, place) = (&mut asked["ssh_keys"]["ed25519_private"], &kept["ssh_keys"]["ed25519_private"]);
            assert!(secret.as_str().unwrap().contains("PRIVATE KEY") && place == "@HOST_KEY@", "{place}");
            *secret = place.clone();
            assert_eq!(asked, kept);
            assert_eq!(Launch { user_data: written.user_data.clone(), ..launch.clone() }, written);
        }
    }
}

/// A journal that fails from the n-th record on.
struct Torn(Mutex<u32>);

#[async_trait]
impl Journal for Torn {
    async fn write(&self, _note: &str) -> Result<(), Failure> {
        let mut left = self.0.lock().unwrap();
        if *left == 0 {
            return Err(Failure::provider("NOT_WRITTEN", "as the test wants it"));
        }
        *left -= 1;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_5_a_request_that_cannot_be_stored_is_not_made() {
    for fleet in [false, true] {
        for (notes, bought) in [(0, 0), (1, 1)] {
            let world = world(fleet);
            let torn = Torn(Mutex::new(notes));
            let job = job("res_1", None);
            let made = timeout(Duration::from_secs(60), provision::provision(world.pool(), &job, &torn)).await;
            let failure = made.expect("it went on without its note").expect_err("nothing was made");
            assert_eq!(failure.reason, "NOT_WRITTEN");
            assert_eq!(world.cloud.instances().len(), bought, "{notes} notes, fleet {fleet}");
        }
    }
}

/// The broker dies after EC2 received the request. EC2's lists show nothing for a minute, so only the record has the request.
#[tokio::test(start_paused = true)]
async fn invariant_12_killed_before_the_answer_it_repeats_the_launch_and_gets_the_same_instance() {
    for fleet in [false, true] {
        let mut world = world(fleet);
        world.cloud.slow(Duration::from_secs(60), Duration::ZERO);
        let notes = Notes::default();
        let heard = Arc::new(Notify::new());
        let hears = heard.clone();
        world.cloud.witness(move |_| hears.notify_one());
        world.cloud.fault(if fleet { "CreateFleet" } else { "RunInstances" }, Fault::Lost);
        tokio::select! {
            biased;
            () = heard.notified() => {}
            _ = world.launch("res_1", &notes) => panic!("the call ended before the kill"),
        }
        assert_eq!(world.cloud.instances().len(), 1, "EC2 received the request");
        world.restart();
        let host = world.launch("res_1", &notes).await.expect("the same request");
        let all: Vec<String> = world.cloud.instances().into_iter().map(|one| one.id).collect();
        assert_eq!(all, [host.instance], "fleet {fleet}: bought twice");
    }
}

/// The destructive path counts from the latest request, not from the plan: the instance of a request that was repeated long
/// after the plan may still be missing from the lists.
#[tokio::test(start_paused = true)]
async fn a_launch_repeated_long_after_its_plan_and_removed_before_it_is_listed_is_found_and_ended() {
    for fleet in [false, true] {
        let mut world = world(fleet);
        world.cloud.slow(Duration::from_secs(20), Duration::ZERO);
        let call = if fleet { "CreateFleet" } else { "RunInstances" };
        let notes = Notes::default();
        for fault in [Fault::Unheard, Fault::Lost] {
            world.cloud.fault(call, fault);
            let cut = timeout(Duration::from_millis(100), world.launch("res_1", &notes)).await;
            assert!(cut.is_err() && launching(notes.last()).is_some(), "the outcome is not known");
            if world.cloud.alive().is_empty() {
                advance(Duration::from_secs(600)).await;
                world.restart();
            }
        }
        assert_eq!((world.cloud.alive().len(), world.cloud.calls(call)), (1, 2), "the repetition launched it");
        // The pool is drained while no list has the instance.
        let resource = job("res_1", notes.last()).resource;
        let failure = world.adapter.destroy(&resource).await.expect_err("the instance can still appear");
        assert_eq!(failure.reason, "NOT_TERMINATED_YET");
        advance(Duration::from_secs(21)).await;
        world.adapter.destroy(&resource).await.expect_err("EC2 has not confirmed its end");
        assert_eq!(world.cloud.alive().len(), 0, "found and ended");
        // A listed instance is the only one of its token, so nothing is left to wait for.
        world.adapter.destroy(&resource).await.unwrap();
    }
}

/// Records of older versions lack the time of the latest request. The version that stored one ended before this process began.
#[tokio::test(start_paused = true)]
async fn a_note_without_the_time_of_its_request_counts_from_the_start_of_the_process() {
    let mut world = world(false);
    world.cloud.slow(Duration::from_secs(200), Duration::ZERO);
    world.cloud.fault("RunInstances", Fault::Unheard);
    let notes = Notes::default();
    assert!(timeout(Duration::from_millis(100), world.launch("res_1", &notes)).await.is_err());
    let mut old: serde_json::Value = serde_json::from_str(&notes.last().unwrap()).unwrap();
    assert!(old.as_object_mut().unwrap().remove("asked_ms").is_some(), "{old}");
    advance(Duration::from_secs(3600)).await;
    world.restart();
    let resource = job("res_1", Some(old.to_string())).resource;
    let within = Duration::from_millis(LISTED_AFTER_MS.unsigned_abs());
    for passed in [Duration::ZERO, within] {
        advance(passed).await;
        assert_eq!(world.adapter.destroy(&resource).await.unwrap_err().reason, "NOT_TERMINATED_YET");
    }
    advance(Duration::from_secs(1)).await;
    world.adapter.destroy(&resource).await.unwrap();
}

/// The stage of the host key is a field of the stored request. The text of the user data, which holds settings, decides nothing.
#[tokio::test(start_paused = true)]
async fn a_stored_request_says_whether_its_instance_makes_a_key_of_its_own() {
    let first = async |world: &World| {
        let notes = Notes::default();
        let host = world.launch("res_1", &notes).await.unwrap();
        assert_eq!(host.key_stage, KeyStage::Bootstrap);
        let first = notes.all.lock().unwrap()[0].clone();
        serde_json::from_str::<serde_json::Value>(&first).unwrap()
    };
    let again = async |world: &mut World, stored: &serde_json::Value| {
        world.restart();
        world.launch("res_1", &Notes::from(stored.to_string())).await.unwrap().key_stage
    };
    // A request of an older version has no such field, and its settings may name any path.
    let mut world = world(false);
    let mut old = first(&world).await;
    assert!(old["launch"]["user_data"].as_str().unwrap().contains("/var/lib/wharfinger/first-contact"));
    assert_eq!(old.as_object_mut().unwrap().remove("key_stage"), Some("bootstrap".into()));
    assert_eq!(again(&mut world, &old).await, KeyStage::Last);
    // A later version may have its script elsewhere.
    let mut world = self::world(false);
    world.cloud.fault("RunInstances", Fault::Unheard);
    let notes = Notes::default();
    assert!(timeout(Duration::from_millis(100), world.launch("res_1", &notes)).await.is_err());
    let mut later: serde_json::Value = serde_json::from_str(&notes.last().unwrap()).unwrap();
    let text = later["launch"]["user_data"].as_str().unwrap().replace("first-contact", "elsewhere");
    later["launch"]["user_data"] = text.into();
    assert_eq!(again(&mut world, &later).await, KeyStage::Bootstrap);
}

/// The answer is lost, then the permission is missing, and the lists lag. There is one launch, and the lists show it.
#[tokio::test(start_paused = true)]
async fn invariant_12_refused_for_good_after_a_lost_answer_it_waits_for_the_lists_before_it_buys_again() {
    for code in ["UnauthorizedOperation", "ExpiredToken", "InsufficientInstanceCapacity", "VcpuLimitExceeded"] {
        for lag in [30, 200] {
            let mut world = world(false);
            world.cloud.slow(Duration::from_secs(lag), Duration::ZERO);
            let notes = Notes::default();
            world.cloud.fault("RunInstances", Fault::Lost);
            world.cloud.fault("RunInstances", Fault::Refused(code));
            let mut waits = 0;
            let host = loop {
                match world.launch("res_1", &notes).await {
                    Ok(host) => break host,
                    Err(failure) => {
                        waits += 1;
                        assert_eq!(failure.reason == "LAUNCH_IN_DOUBT", waits > 1 || !code.starts_with(['U', 'E']));
                    }
                }
                // The broker repeats the call later, perhaps after a restart.
                advance(Duration::from_secs(10)).await;
                world.restart();
            };
            let all: Vec<String> = world.cloud.instances().into_iter().map(|one| one.id).collect();
            assert_eq!(all, [host.instance], "{code}, lag {lag}: bought twice");
            assert!(waits >= lag / 10 - 1, "{waits} waits");
            assert_eq!(world.cloud.calls("RunInstances"), 2, "lists, and no other request");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_launch_whose_refusal_was_lost_is_repeated_anew_after_the_lists_had_their_time() {
    let world = world(false);
    let notes = Notes::default();
    world.cloud.fault("RunInstances", Fault::Unheard);
    world.cloud.fault("RunInstances", Fault::Refused("UnauthorizedOperation"));
    let failure = world.launch("res_1", &notes).await.unwrap_err();
    assert_eq!(failure.reason, "NOT_AUTHORIZED", "the operator gets the cause");
    // A failed list proves nothing.
    advance(Duration::from_millis(LISTED_AFTER_MS.unsigned_abs() + 1000)).await;
    world.cloud.fault("DescribeInstances", Fault::Refused("UnauthorizedOperation"));
    assert_eq!(world.launch("res_1", &notes).await.unwrap_err().reason, "NOT_AUTHORIZED");
    assert_eq!(world.cloud.calls("RunInstances"), 2);
    let host = world.launch("res_1", &notes).await.unwrap();
    assert_eq!(world.cloud.alive()[0].id, host.instance);
    assert!(matches!(notes.note(), Some(Record::Launched { attempt: 2, .. })), "another request, another token");
}
