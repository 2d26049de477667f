//! From a request for a host to one instance, wherever the call is cut off.

use super::world::{Notes, World, job};
use crate::Market;
use crate::cloud::{Launch, Place, State};
use crate::fake::Fault;
use crate::provision;
use crate::record::Record;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{advance, timeout};
use wharfinger_adapter::{Adapter, Blame, Failure};
use wharfinger_ssh::HostKeyType;

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
        let first = Record::read(notes.all.lock().unwrap().first().map(String::as_str)).unwrap().unwrap();
        let Record::Launching { launch, host_key, .. } = first else { panic!("{first:?}") };
        assert_eq!(launch.token, "res_1-1");
        assert!(launch.user_data.contains(&host_key), "the instance shows the key that we expect");
        assert_eq!(world.cloud.calls("RunInstances"), 3);
        assert_eq!(world.cloud.alive().iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [host.instance]);
        assert!(notes.all.lock().unwrap().iter().all(|note| !note.contains("PRIVATE KEY")), "it is stored nowhere");
    }
}

/// The request cannot be repeated unchanged, so EC2's lists show its outcome.
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

/// A setting that changes while a launch is in doubt is for the next request.
#[tokio::test(start_paused = true)]
async fn a_request_keeps_the_type_of_its_host_key() {
    let mut world = World::new(one_place);
    let notes = Notes::default();
    (0..3).for_each(|_| world.cloud.fault("RunInstances", Fault::Lost));
    assert!(timeout(Duration::from_millis(600), world.launch("res_1", &notes)).await.is_err());
    world.configure(|config| config.host_key_type = HostKeyType::Ecdsa);
    let host = world.launch("res_1", &notes).await.unwrap();
    assert!(host.host_key.starts_with("ssh-ed25519 "), "{host:?}");
    assert_eq!(world.cloud.instances().len(), 1, "the same request");
    let host = world.launch("res_2", &Notes::default()).await.unwrap();
    assert!(host.host_key.starts_with("ecdsa-sha2-nistp256 "), "{host:?}");
}

/// The broker is killed at each call and each record, and continues from its latest record. In the end there is one instance.
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
                // The call is cut off while the outcome is not known.
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
    // One zone has no capacity: the other one serves, and the first one rests.
    for place in all_places().iter().filter(|place| place.zone == "us-east-1a") {
        world.cloud.capacity(place, true, false);
    }
    let second = world.launch("res_2", &Notes::default()).await.unwrap();
    assert!(second.spot && second.zone == "us-east-1b", "{second:?}");
    // No zone has spot capacity.
    for place in all_places() {
        world.cloud.capacity(&place, true, false);
    }
    let third = world.launch("res_3", &Notes::default()).await.unwrap();
    assert!(!third.spot);
    let calls = world.cloud.calls("CreateFleet");
    let fourth = world.launch("res_4", &Notes::default()).await.unwrap();
    assert!(!fourth.spot);
    assert_eq!(world.cloud.calls("CreateFleet"), calls + 1, "no request for spot while it rests");
    for place in all_places() {
        world.cloud.capacity(&place, true, true);
    }
    advance(Duration::from_secs(181)).await;
    assert!(world.launch("res_5", &Notes::default()).await.unwrap().spot, "spot again");
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
        let wait = failure.retry_after.expect("a time");
        assert!((Duration::from_secs(170)..Duration::from_secs(190)).contains(&wait), "{wait:?}");
        assert!(matches!(notes.note(), Some(Record::Over { .. })), "nothing was launched");
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
    assert!(!world.launch("res_2", &Notes::default()).await.unwrap().spot, "spot rests");
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
        // After the correction: another request with another token.
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
    let report = world.adapter.account().market_stats();
    assert_eq!(report.iter().map(|line| line.counts.interruptions).sum::<u64>(), 1, "{report:?}");
}

/// Provisions until the call ends. Nothing listens at the addresses, so it fails.
async fn provisioned(world: &World, notes: &Notes) -> Failure {
    let job = job("res_1", notes.last());
    tokio::select! {
        made = provision::provision(world.pool(), &job, notes) => made.expect_err("nothing listens there"),
        () = pump(world) => unreachable!("it pumps for ever"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reason_that_the_operator_must_correct_is_reported_and_stops_the_launches() {
    for code in ["Client.InternalError", "Client.InvalidKMSKey.InvalidState", "Client.InvalidSnapshot.NotFound"] {
        for fleet in [false, true] {
            let world = if fleet { World::new(|_| {}) } else { World::new(one_place) };
            world.cloud.slow(Duration::ZERO, Duration::from_secs(1));
            world.cloud.fails(Some(code));
            let notes = Notes::default();
            let failure = provisioned(&world, &notes).await;
            assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "LAUNCH_FAILED"), "{failure}");
            let instance = world.cloud.instances()[0].id.clone();
            for part in [instance.as_str(), code, "as the test wants it", "; "] {
                assert!(failure.message.contains(part), "{part}: {failure}");
            }
            assert!(failure.retry_after.is_some_and(|wait| wait >= Duration::from_secs(10)), "{failure:?}");
            assert_eq!(world.cloud.instances().len(), 1, "no other one is bought to end in the same way");
            assert!(matches!(notes.note(), Some(Record::Over { attempt: 1 })));
            // Corrected: another request.
            world.cloud.fails(None);
            world.launch("res_1", &Notes::from(notes.last().unwrap())).await.unwrap();
            assert_eq!(world.cloud.alive().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reason_of_the_provider_is_reported_after_the_last_launch() {
    for (code, reason, launches) in [
        ("Server.InternalError", "EC2_FAILED", 4),
        ("Client.UserInitiatedShutdown", "EC2_FAILED", 4),
        ("Client.VolumeLimitExceeded", "QUOTA_REACHED", 2),
    ] {
        let world = World::new(one_place);
        world.cloud.slow(Duration::ZERO, Duration::from_secs(1));
        world.cloud.fails(Some(code));
        let failure = provisioned(&world, &Notes::default()).await;
        assert_eq!((failure.blame, failure.reason), (Blame::Provider, reason), "{failure}");
        assert!(failure.message.contains(code), "{failure}");
        assert_eq!(world.cloud.instances().len(), launches, "{code}");
    }
    // Spot that is taken away while it boots rests; on demand has none either.
    let world = World::new(|config| {
        one_place(config);
        config.market = Market::SpotOnly;
    });
    world.cloud.slow(Duration::ZERO, Duration::from_secs(1));
    world.cloud.fails(Some("Server.InsufficientInstanceCapacity"));
    let failure = provisioned(&world, &Notes::default()).await;
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "NO_CAPACITY"), "{failure}");
    assert!(failure.message.contains("Server.InsufficientInstanceCapacity"), "{failure}");
    assert_eq!(world.cloud.instances().len(), 1, "the place rests");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stays_pending_is_reported_with_its_state_and_reason() {
    let world = World::new(one_place);
    world.cloud.slow(Duration::ZERO, Duration::from_secs(3600));
    let notes = Notes::default();
    let host = world.launch("res_1", &notes).await.unwrap();
    world.cloud.becomes(&host.instance, State::Pending, Some("pending"));
    let failure = provisioned(&world, &notes).await;
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "BOOT_TIMEOUT"), "{failure}");
    assert!(failure.message.contains("is pending (pending: as the test wants it)"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_type_that_a_zone_does_not_offer_rests_in_that_zone_alone() {
    let refused = "InvalidFleetConfiguration";
    let world = World::new(|_| {});
    let places = all_places();
    world.cloud.refuses(&places[0], true, Some(refused));
    assert!(world.launch("res_1", &Notes::default()).await.unwrap().spot);
    let asked: Arc<Mutex<Vec<Launch>>> = Arc::default();
    let seen = asked.clone();
    world.cloud.witness(move |launch| seen.lock().unwrap().push(launch.clone()));
    assert!(world.launch("res_2", &Notes::default()).await.unwrap().spot);
    assert_eq!(asked.lock().unwrap()[0].places, places[1..], "the other places stay");
    // A lack of capacity would rest for a shorter time.
    advance(Duration::from_secs(181)).await;
    world.launch("res_3", &Notes::default()).await.unwrap();
    assert_eq!(asked.lock().unwrap()[1].places.len(), 3, "it rests for longer");
    advance(Duration::from_secs(1800)).await;
    world.launch("res_4", &Notes::default()).await.unwrap();
    assert_eq!(asked.lock().unwrap()[2].places.len(), 4);
    // The other places have no spot capacity: on demand.
    for place in &places[1..] {
        world.cloud.capacity(place, true, false);
    }
    assert!(!world.launch("res_5", &Notes::default()).await.unwrap().spot, "it goes on with the other market");
}

#[tokio::test(start_paused = true)]
async fn a_type_that_no_zone_offers_in_any_market_is_the_operators_to_correct() {
    for (fleet, refused) in [(true, "InvalidFleetConfiguration"), (false, "Unsupported")] {
        let world = if fleet { World::new(|_| {}) } else { World::new(one_place) };
        let places = all_places();
        for place in &places {
            world.cloud.refuses(place, true, Some(refused));
            world.cloud.capacity(place, false, false);
        }
        let notes = Notes::default();
        let failure = world.launch("res_1", &notes).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Provider, "NO_CAPACITY"), "on demand may come: {failure}");
        advance(Duration::from_secs(181)).await;
        for place in &places {
            world.cloud.refuses(place, false, Some(refused));
        }
        let failure = world.launch("res_1", &notes).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "REFUSED_BY_EC2"), "{failure}");
        assert!(failure.message.contains(refused) && failure.message.contains("`subnets`"), "{failure}");
        assert_eq!(world.cloud.instances().len(), 0);
        // The next attempt asks again, so that a correction takes effect at once.
        world.cloud.refuses(&places[0], true, None);
        assert!(world.launch("res_1", &notes).await.unwrap().spot);
    }
}

/// The loop that lists booting instances. Tests start no tasks.
async fn pump(world: &World) {
    loop {
        world.adapter.account().poll_wanted().await;
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
        made = provision::provision(world.pool(), &job_, &notes) => made.unwrap_err(),
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
async fn an_instance_removed_while_its_launch_is_in_doubt_is_found_when_the_lists_show_it() {
    let world = World::new(one_place);
    world.cloud.slow(Duration::from_secs(30), Duration::ZERO);
    world.cloud.fault("RunInstances", Fault::Lost);
    let notes = Notes::default();
    // The broker removes the resource after EC2 received the request and before the answer.
    let cut = timeout(Duration::from_millis(100), world.launch("res_1", &notes)).await;
    assert!(cut.is_err() && matches!(notes.note(), Some(Record::Launching { .. })));
    assert_eq!(world.cloud.alive().len(), 1);
    let resource = job("res_1", notes.last()).resource;
    let failure = world.adapter.destroy(&resource).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "NOT_TERMINATED_YET"), "it is not in the lists yet");
    advance(Duration::from_secs(31)).await;
    world.adapter.destroy(&resource).await.unwrap_err();
    assert_eq!(world.cloud.alive().len(), 0, "found and ended");
    world.adapter.destroy(&resource).await.unwrap();
    // EC2 never received this request, so only the time passes.
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
