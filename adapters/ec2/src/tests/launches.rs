//! From a wanted host to an instance: once, whatever is cut off.

use super::world::{Notes, World, job};
use crate::Market;
use crate::cloud::{Place, State};
use crate::fake::Fault;
use crate::note::Note;
use crate::provision;
use std::time::Duration;
use tokio::time::{advance, timeout};
use wharfinger_adapter::{Adapter, Blame};

fn place(instance_type: &str, zone: &str) -> Place {
    let subnet = format!("subnet-{}", &zone[zone.len() - 1..]);
    Place { instance_type: instance_type.into(), zone: zone.into(), subnet }
}

fn all_places() -> Vec<Place> {
    let zones = ["us-east-1a", "us-east-1b"];
    ["m7i.large", "m6i.large"].iter().flat_map(|kind| zones.map(|zone| place(kind, zone))).collect()
}

fn one_place(config: &mut crate::Config) {
    config.types.truncate(1);
    config.subnets.pop_last();
}

#[tokio::test(start_paused = true)]
async fn the_request_is_written_down_first_and_the_same_request_is_repeated_until_its_outcome_is_known() {
    for fault in [Fault::Lost, Fault::Unheard] {
        let world = World::new(one_place);
        world.cloud.fault("RunInstances", fault.clone());
        world.cloud.fault("RunInstances", fault);
        let notes = Notes::default();
        let host = world.launch("res_1", &notes).await.unwrap();
        let first = Note::read(notes.all.lock().unwrap().first().map(String::as_str)).unwrap().unwrap();
        let Note::Launching { launch, host_key, .. } = first else { panic!("{first:?}") };
        assert_eq!(launch.token, "res_1-1");
        assert!(launch.user_data.contains(&host_key), "the instance shows the key that we expect");
        assert_eq!(world.cloud.calls("RunInstances"), 3);
        assert_eq!(world.cloud.alive().iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [host.instance]);
        assert!(notes.all.lock().unwrap().iter().all(|note| !note.contains("PRIVATE KEY")), "it is stored nowhere");
    }
}

/// The request cannot be repeated as it stood, so what it came to is read from EC2's lists.
#[tokio::test(start_paused = true)]
async fn a_login_key_that_changes_while_a_launch_is_in_doubt_launches_nothing_twice() {
    let mut world = World::new(one_place);
    let notes = Notes::default();
    (0..3).for_each(|_| world.cloud.fault("RunInstances", Fault::Lost));
    assert!(timeout(Duration::from_millis(600), world.launch("res_1", &notes)).await.is_err());
    std::fs::write(world.login_key(), wharfinger_ssh::host_key().unwrap().private).unwrap();
    world.restart();
    let asked = world.cloud.calls("RunInstances");
    let host = world.launch("res_1", &notes).await.unwrap();
    assert_eq!(world.cloud.calls("RunInstances"), asked);
    assert_eq!(world.cloud.alive().iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [host.instance]);
}

/// The broker is killed at every call and every note, and goes on from its last note: one instance in the end.
#[tokio::test(start_paused = true)]
async fn killed_anywhere_it_launches_once() {
    for fleet in [false, true] {
        for done in [Fault::Lost, Fault::Unheard] {
            for at in ["CreateLaunchTemplate", "CreateFleet", "RunInstances"] {
                let mut world = World::new(|config| {
                    if !fleet {
                        one_place(config);
                    }
                });
                let notes = Notes::default();
                // More faults than it repeats: it is cut off with the outcome in doubt.
                for _ in 0..3 {
                    world.cloud.fault(at, done.clone());
                }
                let cut = timeout(Duration::from_millis(600), world.launch("res_1", &notes)).await;
                world.restart();
                let host = match cut {
                    Ok(Ok(host)) => host,
                    _ => world.launch("res_1", &notes).await.unwrap(),
                };
                let alive: Vec<String> = world.cloud.alive().into_iter().map(|one| one.id).collect();
                assert_eq!(alive, [host.instance], "fleet {fleet}, {at} {done:?}");
                assert_eq!(world.cloud.instances().len(), 1, "fleet {fleet}, {at} {done:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_launches_make_one_template() {
    let world = World::new(|_| {});
    let notes: Vec<Notes> = (0..100).map(|_| Notes::default()).collect();
    let ids: Vec<String> = (0..100).map(|n| format!("res_{n}")).collect();
    let launches = ids.iter().zip(&notes).map(|(id, notes)| world.launch(id, notes));
    for host in futures::future::join_all(launches).await {
        host.unwrap();
    }
    assert_eq!((world.cloud.calls("CreateLaunchTemplate"), world.cloud.calls("CreateFleet")), (1, 100));
    assert_eq!(world.cloud.alive().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn three_hundred_at_once_come_at_the_rate_of_the_api_and_each_once() {
    let world = World::new(|config| config.launch_timeout_ms = 600_000);
    // Some answers are lost, some calls throttled.
    for n in 0..10 {
        world.cloud.fault("CreateFleet", Fault::Lost);
        if n < 3 {
            world.cloud.fault("CreateFleet", Fault::Refused("RequestLimitExceeded"));
        }
    }
    let begun = tokio::time::Instant::now();
    let notes: Vec<Notes> = (0..300).map(|_| Notes::default()).collect();
    let ids: Vec<String> = (0..300).map(|n| format!("res_{n}")).collect();
    let launches = ids.iter().zip(&notes).map(|(id, notes)| world.launch(id, notes));
    for host in futures::future::join_all(launches).await {
        host.unwrap();
    }
    assert_eq!((world.cloud.alive().len(), world.cloud.instances().len()), (300, 300));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(420), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_spot_capacity_it_buys_on_demand_and_goes_back_by_itself() {
    let world = World::new(|_| {});
    let first = world.launch("res_1", &Notes::default()).await.unwrap();
    assert!(first.spot);
    // One zone has none: the other is used, and the first left alone for a while.
    for place in all_places().iter().filter(|place| place.zone == "us-east-1a") {
        world.cloud.capacity(place, true, false);
    }
    let second = world.launch("res_2", &Notes::default()).await.unwrap();
    assert!(second.spot && second.zone == "us-east-1b", "{second:?}");
    // Then none at all.
    for place in all_places() {
        world.cloud.capacity(&place, true, false);
    }
    let third = world.launch("res_3", &Notes::default()).await.unwrap();
    assert!(!third.spot);
    let calls = world.cloud.calls("CreateFleet");
    let fourth = world.launch("res_4", &Notes::default()).await.unwrap();
    assert!(!fourth.spot);
    assert_eq!(world.cloud.calls("CreateFleet"), calls + 1, "spot is not asked while it is left alone");
    for place in all_places() {
        world.cloud.capacity(&place, true, true);
    }
    advance(Duration::from_secs(181)).await;
    assert!(world.launch("res_5", &Notes::default()).await.unwrap().spot, "back by itself");
}

#[tokio::test(start_paused = true)]
async fn without_any_capacity_it_waits_and_says_how_long() {
    for (market, word) in [(Market::SpotOnly, "no spot capacity"), (Market::SpotFirst, "spot or on-demand")] {
        let world = World::new(|config| config.market = market);
        for place in all_places() {
            world.cloud.capacity(&place, true, false);
            world.cloud.capacity(&place, false, false);
        }
        let notes = Notes::default();
        let failure = world.launch("res_1", &notes).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Provider, "NO_CAPACITY"));
        assert!(failure.message.contains(word), "{failure}");
        let wait = failure.retry_after.expect("it says when");
        assert!((Duration::from_secs(170)..Duration::from_secs(190)).contains(&wait), "{wait:?}");
        assert!(matches!(notes.note(), Some(Note::Over { .. })), "nothing is left of it");
        assert_eq!(world.cloud.instances().len(), 0);
        for place in all_places() {
            world.cloud.capacity(&place, true, true);
        }
        advance(wait).await;
        assert!(world.launch("res_1", &notes).await.unwrap().spot);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_stops_its_kind_and_a_mistake_waits_for_the_operator() {
    let world = World::new(one_place);
    world.cloud.fault("RunInstances", Fault::Refused("MaxSpotInstanceCountExceeded"));
    assert!(!world.launch("res_1", &Notes::default()).await.unwrap().spot, "on demand instead");
    assert!(!world.launch("res_2", &Notes::default()).await.unwrap().spot, "and spot is not asked again at once");
    world.cloud.fault("RunInstances", Fault::Refused("VcpuLimitExceeded"));
    let failure = world.launch("res_3", &Notes::default()).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "QUOTA_REACHED"));

    for (code, reason) in [
        ("InvalidAMIID.NotFound", "IMAGE_INVALID"),
        ("UnauthorizedOperation", "NOT_AUTHORIZED"),
        ("InvalidSubnetID.NotFound", "REFUSED_BY_EC2"),
        ("ExpiredToken", "CREDENTIALS"),
    ] {
        let world = World::new(one_place);
        world.cloud.fault("RunInstances", Fault::Refused(code));
        let notes = Notes::default();
        let failure = world.launch("res_1", &notes).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Configuration, reason), "{code}");
        // Mended: another request, and another token.
        let host = world.launch("res_1", &notes).await.unwrap();
        assert_eq!(world.cloud.alive()[0].id, host.instance);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_lost_answer_is_looked_into_before_anything_new_is_bought() {
    let world = World::new(one_place);
    world.cloud.fault("RunInstances", Fault::Lost);
    world.cloud.fault("RunInstances", Fault::Refused("InsufficientInstanceCapacity"));
    let host = world.launch("res_1", &Notes::default()).await.unwrap();
    assert_eq!(world.cloud.instances().len(), 1);
    assert_eq!(world.cloud.alive()[0].id, host.instance, "found by its tags");
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_while_it_boots_is_replaced_by_another_attempt() {
    let world = World::new(one_place);
    let notes = Notes::default();
    let first = world.launch("res_1", &notes).await.unwrap();
    world.cloud.becomes(&first.instance, State::Terminated, Some("Server.SpotInstanceTermination"));
    let pumping = pump(&world);
    let second = tokio::select! {
        second = world.launch("res_1", &notes) => second.unwrap(),
        () = pumping => unreachable!("it pumps for ever"),
    };
    assert_ne!(first.instance, second.instance);
    assert_eq!(world.cloud.alive().len(), 1);
    let report = world.adapter.hub().weather();
    assert_eq!(report.iter().map(|line| line.counts.interruptions).sum::<u64>(), 1, "{report:?}");
}

/// The loop that looks at what boots; tests start no tasks.
async fn pump(world: &World) {
    loop {
        world.adapter.hub().poll_wanted().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_never_answers_is_given_up_with_its_reason_and_ended() {
    let world = World::new(one_place);
    world.cloud.slow(Duration::from_secs(20), Duration::from_secs(30));
    let notes = Notes::default();
    world.launch("res_1", &notes).await.unwrap();
    let job_ = job("res_1", notes.last());
    let failure = tokio::select! {
        made = provision::provision(world.parts(), &job_, &notes) => made.unwrap_err(),
        () = pump(&world) => unreachable!("it pumps for ever"),
    };
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "UNREACHABLE"), "{failure}");
    assert!(failure.message.contains("after 60 s"), "{failure}");
    let resource = job("res_1", notes.last()).resource;
    world.adapter.destroy(&resource).await.unwrap();
    world.adapter.destroy(&resource).await.unwrap();
    assert_eq!(world.cloud.alive().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_while_its_launch_is_in_doubt_is_found_when_it_shows_up() {
    let world = World::new(one_place);
    world.cloud.slow(Duration::from_secs(30), Duration::ZERO);
    world.cloud.fault("RunInstances", Fault::Lost);
    let notes = Notes::default();
    // The broker removes it in the moment in which the request was heard and its answer was not.
    let cut = timeout(Duration::from_millis(100), world.launch("res_1", &notes)).await;
    assert!(cut.is_err() && matches!(notes.note(), Some(Note::Launching { .. })));
    assert_eq!(world.cloud.alive().len(), 1);
    let resource = job("res_1", notes.last()).resource;
    let failure = world.adapter.destroy(&resource).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "NOT_TERMINATED_YET"), "it is not in the lists yet");
    advance(Duration::from_secs(31)).await;
    world.adapter.destroy(&resource).await.unwrap_err();
    assert_eq!(world.cloud.alive().len(), 0, "found, and told to end");
    world.adapter.destroy(&resource).await.unwrap();
    // One that was never heard needs no more than patience.
    let other = World::new(one_place);
    other.cloud.fault("RunInstances", Fault::Unheard);
    let notes = Notes::default();
    let _ = timeout(Duration::from_millis(100), other.launch("res_2", &notes)).await;
    let resource = job("res_2", notes.last()).resource;
    other.adapter.destroy(&resource).await.unwrap_err();
    advance(Duration::from_secs(299)).await;
    other.adapter.destroy(&resource).await.unwrap_err();
    advance(Duration::from_secs(2)).await;
    other.adapter.destroy(&resource).await.unwrap();
    other.adapter.destroy(&job("res_never", None).resource).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_terminate_does_not_know_yet_is_not_taken_for_gone() {
    let world = World::new(one_place);
    world.cloud.slow(Duration::from_secs(60), Duration::ZERO);
    let notes = Notes::default();
    world.launch("res_1", &notes).await.unwrap();
    let resource = job("res_1", notes.last()).resource;
    let failure = world.adapter.destroy(&resource).await.unwrap_err();
    assert_eq!(failure.reason, "NOT_TERMINATED_YET");
    advance(Duration::from_secs(61)).await;
    world.adapter.destroy(&resource).await.unwrap();
    assert_eq!(world.cloud.alive().len(), 0);
}
