//! The life of a host: a lease, a launch, a copy, a build, its release, idleness, and the end of the instance.

use super::account::{Account, Cloud, Pools, skip};
use crate::support::text;
use serde_json::json;
use wharfinger::pb::ResourceState;

#[test]
fn lease_launch_copy_build_release_idle_terminate() {
    if skip("lease_launch_copy_build_release_idle_terminate") {
        return;
    }
    let account = Account::start();
    account.chaos("set", &json!({ "boot": 1.0, "lag": 0.5 }));
    let cloud = Cloud::start_in(account, Pools { spot: "max = 3\nidle = \"2s\"", ..Pools::default() });
    assert!(cloud.account.machines().is_empty(), "no lease, no launch");

    let script = "cat hello.txt; git rev-parse HEAD; echo on $WHARFINGER_RESOURCE";
    let output = cloud.farm.server.cli(&["run", "--pool", "copies", "--", "sh", "-c", script]);
    assert!(output.status.success(), "{}\n{}", text(&output), cloud.farm.server.log());
    assert!(text(&output).contains("hello"), "{}", text(&output));

    let machines = cloud.account.machines();
    assert_eq!(machines.len(), 1, "{machines:?}");
    assert!(machines[0].spot, "{machines:?}");
    let tags = &machines[0].tags;
    assert_eq!(tags["wharfinger:deployment"], "e2e");
    let host = cloud.farm.resource(&tags["wharfinger:resource"]);
    assert_eq!(host.labels["instance"], machines[0].id);
    assert_eq!((host.labels["zone"].as_str(), host.labels["market"].as_str()), (machines[0].zone.as_str(), "spot"));

    // A missing file of AWS profiles is normal, and not logged.
    assert!(!cloud.farm.server.log().contains("nonexistent"), "{}", cloud.farm.server.log());

    // The idle host is terminated.
    cloud.until_alive(0);
    cloud.farm.until(&host.id, ResourceState::Gone);
    let launches = cloud.account.launches();
    assert_eq!(launches.len(), 1, "{launches:?}");
    let token = launches[0].token.clone().unwrap();
    assert!(token.starts_with(&host.id), "{token}");
}
