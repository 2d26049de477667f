//! Every state in which a holder may leave its working copy, on a real SSH host: spoilt under the lease, released, cleaned,
//! and leased again. The states are those of the copies' own tests, which play them on this machine's shell.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, unused_imports, reason = "the copies' tests use the rest")]
#[path = "../../copies/tests/support/mod.rs"]
mod copies;
#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use copies::World;
use copies::broker::Then;
use copies::rows::{self, Row};
use std::sync::Arc;
use wharfinger_copies::Clean;

/// One copy for each chunk of rows.
const COPIES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn no_state_is_handed_out_by_a_real_host() {
    let sshd = Arc::new(sshd_or_skip!());
    let all: Vec<Row> = rows::all().concat();
    assert!(all.len() > 100, "{}", all.len());
    let mut lives = Vec::new();
    for rows in all.chunks(all.len().div_ceil(COPIES)).map(<[Row]>::to_vec) {
        let sshd = sshd.clone();
        lives.push(tokio::spawn(async move {
            let mut world = World::bare(|config| config.clean = Clean::Clean);
            world.job = world.job_on(pool::holder(&sshd));
            world.provision().await.unwrap();
            world.play(&rows, Then::Released).await;
        }));
    }
    for life in lives {
        life.await.unwrap();
    }
}
