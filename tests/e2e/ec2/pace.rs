//! The time of a notice from the queue to the holder, and the repetition of an interrupted build.

use super::account::{Account, Cloud, Pools, skip};
use crate::support::{PATIENCE, quiet};
use serde_json::json;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

const NOTICES: u64 = 200;

/// Maximum time of one notice on a busy machine with two processors. The design's budget is for a quiet machine.
const FAR_TOO_LONG: Duration = Duration::from_secs(5);

#[test]
fn each_of_many_notices_reaches_the_holder() {
    if skip("each_of_many_notices_reaches_the_holder") {
        return;
    }
    let _quiet = quiet();
    let cloud = Cloud::start(Pools { spot: "max = 1", ..Pools::default() });
    let farm = &cloud.farm;
    let lease = farm.active(&farm.ask("spot", "builder", false).id).lease;
    let instance = cloud.instance_of(&lease.resource_id);
    // Each warning has an earlier end than the one before, so that each changes the lease.
    let mut end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 7200;
    let mut took = Vec::new();
    for _ in 0..NOTICES {
        end -= 1;
        let time = cloud.account.chaos("time", &json!({ "unix": end - 120 }))["text"].clone();
        let body = json!({ "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning", "time": time,
                           "detail": { "instance-id": instance, "instance-action": "terminate" } });
        let since = SystemTime::now();
        cloud.account.chaos("send", &json!({ "body": body.to_string() }));
        let told = farm.told(&lease.id, since, "the new end", |lease| {
            lease.ends_at.is_some_and(|at| at.seconds == i64::try_from(end).unwrap())
        });
        took.push(told.at.duration_since(since).unwrap());
    }
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    assert!(at(100) < FAR_TOO_LONG, "{:?}", at(100));
    let (half, most, all) = (at(50).as_millis(), at(99).as_millis(), at(100).as_millis());
    println!(
        "TABLE | notice in the queue -> holder told | {NOTICES} notices: p50 {half} ms, p99 {most} ms, max {all} ms |"
    );
}

#[test]
fn an_interrupted_build_is_run_again_on_another_host_without_a_hand() {
    if skip("an_interrupted_build_is_run_again_on_another_host_without_a_hand") {
        return;
    }
    let cloud = Cloud::start(Pools::default());
    let marks = cloud.farm.server.folder.path().join("marks");
    std::fs::create_dir(&marks).unwrap();
    // The first run would take an hour.
    let script = format!(
        "touch {0}/$WHARFINGER_LEASE; [ $(ls {0} | wc -l) -gt 1 ] && exec cat hello.txt; sleep 3600",
        marks.display()
    );
    let child = cloud
        .farm
        .server
        .command(&["run", "--pool", "copies", "--retries", "2", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = cloud.farm.server.wait("the build", || std::fs::read_dir(&marks).unwrap().next());
    let lease = begun.unwrap().file_name().into_string().unwrap();
    let first = cloud.instance_of(&cloud.host_of(&cloud.farm.get(&lease).resource_id));
    cloud.account.warn(&first);
    cloud.farm.server.wait("the warning", || cloud.farm.get(&lease).ends_at);
    cloud.account.take_away(&first);
    let since = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(since.elapsed() < PATIENCE);
    assert!(output.status.success(), "{}\n{}", crate::support::text(&output), cloud.farm.server.log());
    assert!(crate::support::text(&output).contains("hello"), "{}", crate::support::text(&output));
    let launches = cloud.account.launches();
    assert_eq!(launches.len(), 2, "{launches:?}");
    println!(
        "TABLE | interrupted build | on another host {} ms after the instance was gone |",
        since.elapsed().as_millis()
    );
}

#[test]
fn the_doctor_says_what_is_missing() {
    if skip("the_doctor_says_what_is_missing") {
        return;
    }
    let cloud = Cloud::start_in(Account::start(), Pools::default());
    let doctor = || {
        let config = cloud.farm.server.config();
        let mut command = cloud.farm.server.command(&["--json", "doctor", "ec2", "--config", config.to_str().unwrap()]);
        let output = command.envs(cloud.account.env()).output().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", crate::support::text(&output)));
        (output.status.code().unwrap(), told["findings"].as_array().unwrap().clone())
    };
    let result = |found: &[serde_json::Value], what: &str| {
        let one = found.iter().find(|one| one["what"].as_str().unwrap().contains(what));
        one.unwrap_or_else(|| panic!("{what}: {found:#?}"))["result"].as_str().unwrap().to_string()
    };
    let (code, found) = doctor();
    for what in
        ["credentials", "DescribeInstances", "RunInstances", "CreateFleet", "CreateLaunchTemplate", "ReceiveMessage"]
    {
        assert_eq!(result(&found, what), "good", "{found:#?}");
    }
    assert_eq!(result(&found, "TerminateInstances"), "not tried", "there is none");
    // moto's queue has no policy, so EventBridge cannot send to it.
    assert_eq!((result(&found, "queue policy").as_str(), code), ("MISSING", 78));
    cloud.account.chaos(
        "policy",
        &json!({ "policy": { "Statement": [{ "Principal": { "Service": "events.amazonaws.com" } }] } }),
    );
    let (code, found) = doctor();
    assert_eq!((result(&found, "queue policy").as_str(), code), ("good", 0), "{found:#?}");
    assert!(cloud.account.machines().is_empty(), "nothing is bought");

    cloud.account.chaos("fault", &json!({ "action": "CreateFleet", "code": "UnauthorizedOperation", "status": 403 }));
    let (code, found) = doctor();
    assert_eq!((result(&found, "CreateFleet").as_str(), code), ("MISSING", 78), "{found:#?}");
    cloud.account.chaos("set", &json!({ "expired": "ExpiredToken" }));
    let (code, found) = doctor();
    assert_eq!((result(&found, "credentials").as_str(), code, found.len()), ("MISSING", 78, 1), "{found:#?}");
}
