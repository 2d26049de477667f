//! The number of calls of an idle farm.

use super::world::World;
use crate::reconcile;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn an_hour_of_a_thousand_idle_hosts() {
    let world = World::new(|config| {
        config.queue = Some("https://sqs.example/notices".into());
        config.launch_timeout_ms = 3_600_000;
    });
    for n in 0..1000 {
        world.serving(&format!("res_{n}")).await;
    }
    let calls = ["DescribeInstances", "DescribeInstanceStatus", "ReceiveMessage", "DescribeLaunchTemplates"];
    let before = calls.map(|call| world.cloud.calls(call));
    reconcile::start(world.adapter.account());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let made: Vec<usize> = calls.iter().zip(before).map(|(call, before)| world.cloud.calls(call) - before).collect();
    println!("TABLE | calls in an hour at 1,000 idle hosts | {calls:?} {made:?} |");
    for (made, most) in made.iter().zip([260, 200, 190, 10]) {
        assert!(*made > 0 && *made <= most, "{made} of at most {most}");
    }
    assert!(world.books.heard().is_empty());
    assert_eq!(world.cloud.alive().len(), 1000);
}
