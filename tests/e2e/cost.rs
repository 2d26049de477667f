//! The cost of the proof of a caller, in short: each way beside plaintext, in turns on one engine. `cargo bench --bench load -- --trust` measures
//! it with the speed of a release; docs/scale.md has the figures. Here a limit that is far below keeps out what makes calls slow.

use crate::meter::{Plan, median};
use crate::support::quiet;
use crate::trust::{By, Ways};
use std::time::Duration;

/// The least share of the plaintext rate. A test build encrypts slowly, and other tests run beside it.
const FLOOR: f64 = 0.4;

#[test]
fn a_caller_that_is_known_costs_little_more_than_one_that_is_not() {
    let _alone = quiet();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { connections: 4, in_flight: 32, span: Duration::from_millis(500) };
    runtime.block_on(async {
        let ways = Ways::start(folder.path()).await;
        for by in [By::Certificate, By::Token, By::TlsToken] {
            let mut ratios = Vec::new();
            for _ in 0..5 {
                let plain = ways.lease(By::Nothing, plan).await;
                let known = ways.lease(by, plan).await;
                ratios.push(known.rate / plain.rate);
            }
            // A cost of the proof is in each round; other tests are not.
            let best = ratios.iter().copied().fold(0.0, f64::max);
            eprintln!("COST a lease by {by:?}: {:.2} of the plaintext rate, {best:.2} at best", median(ratios));
            assert!(best >= FLOOR, "{by:?}: {best:.2}");
        }
        let handshakes = ways.handshakes(plan).await;
        eprintln!("COST {:.0} handshakes a second", handshakes.rate);
        assert!(handshakes.rate > 20.0, "{:.0}", handshakes.rate);
    });
}
