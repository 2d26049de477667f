//! The findings of the doctor.

use crate::config::Config;
use crate::config::tests::GOOD;
use crate::doctor::{Finding, Health, examine};
use crate::fake::{FakeCloud, Fault};

fn config() -> Config {
    toml::from_str(&format!("{GOOD}\nqueue = \"https://sqs.example/notices\"")).unwrap()
}

fn of<'a>(found: &'a [Finding], what: &str) -> &'a Finding {
    found.iter().find(|one| one.what.contains(what)).unwrap_or_else(|| panic!("{what}: {found:#?}"))
}

#[tokio::test(start_paused = true)]
async fn each_permission_is_tried_and_the_event_arrives() {
    let cloud = FakeCloud::new();
    cloud.policy("{\"Service\":\"events.amazonaws.com\"}");
    cloud.stray(&[("wharfinger:deployment", "ci")]);
    let found = examine(&cloud, "spot", &config()).await;
    assert!(found.iter().all(|one| one.health == Health::Good), "{found:#?}");
    assert_eq!((cloud.messages_left(), cloud.instances().len()), (0, 1), "no message is left, nothing was launched");
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_reported_by_its_name() {
    for (call, what, health) in [
        ("DescribeInstances", "ec2:DescribeInstances", Health::Bad),
        ("DescribeInstanceStatus", "ec2:DescribeInstanceStatus", Health::Minor),
        ("RunInstances", "ec2:RunInstances", Health::Bad),
        ("CreateFleet", "ec2:CreateFleet", Health::Bad),
        ("CreateLaunchTemplate", "ec2:CreateLaunchTemplate", Health::Bad),
        ("ReceiveMessage", "sqs:ReceiveMessage", Health::Bad),
        ("SendMessage", "sqs:SendMessage", Health::Untried),
    ] {
        let cloud = FakeCloud::new();
        cloud.fault(call, Fault::Refused("UnauthorizedOperation"));
        let found = examine(&cloud, "spot", &config()).await;
        assert_eq!(of(&found, what).health, health, "{call}: {found:#?}");
    }
    let cloud = FakeCloud::new();
    cloud.policy("{\"Service\":\"sns.amazonaws.com\"}");
    let found = examine(&cloud, "spot", &config()).await;
    assert_eq!(of(&found, "queue policy").health, Health::Good, "the events come through a topic");
    cloud.policy("");
    let found = examine(&cloud, "spot", &config()).await;
    assert_eq!(of(&found, "queue policy").health, Health::Bad, "EventBridge may not send");
    assert_eq!(of(&found, "ec2:TerminateInstances").health, Health::Untried, "there is no instance to try it on");
    cloud.fault("DescribeInstances", Fault::Refused("ExpiredToken"));
    let found = examine(&cloud, "spot", &config()).await;
    assert_eq!((found.len(), found[0].what.as_str()), (1, "credentials"), "{found:#?}");
}
