//! End to end: the real binary with real sshd, git, grpcurl and a Python client. Each test has a server, a database and
//! folders of its own; what a test starts, it ends by its own id. Tests that need root or a program say so and skip.

#![allow(clippy::disallowed_methods, reason = "tests compare with what they see on their own clock")]
#![allow(clippy::unwrap_used, reason = "a test that can not go on stops")]

mod addresses;
mod audit;
mod bad_input;
mod brake;
mod browser;
mod canary;
mod check_connect;
mod ci;
mod clock;
mod cluster_tls;
mod command;
mod complete;
mod containment;
mod copies;
mod cost;
mod db;
mod demo;
#[cfg(feature = "ec2")]
mod ec2;
mod failover;
mod failover_hosts;
mod false_break;
mod farm;
mod faults;
mod first_farm;
mod flapping;
mod followers;
mod grpcurl;
mod hand_out;
mod history;
mod hooks;
mod hosts;
#[path = "../../jwt/tests/support/mod.rs"]
mod issuer;
mod jwt;
mod kill;
mod landing;
mod log_cost;
mod log_lines;
mod login;
mod lossy;
mod machines;
mod many_watches;
mod messages;
#[allow(dead_code, reason = "benchmarks use the rest")]
#[path = "../../benches/load/meter.rs"]
mod meter;
mod metrics;
mod notices;
mod old_client;
mod pace;
mod page;
mod postgres;
#[path = "../support/postgres.rs"]
mod postgresql;
#[path = "../support/proxy.rs"]
mod proxy;
mod python;
mod reach;
mod rotation;
mod seed;
mod sessions;
mod signals;
mod spoilt;
#[path = "../../adapters/ssh/tests/support/mod.rs"]
mod sshd;
mod support;
mod table;
mod terminal;
mod tls;
mod tokens;
mod top;
mod traces;
#[allow(dead_code, reason = "benchmarks use the rest")]
#[path = "../../benches/load/trust.rs"]
mod trust;
mod unix;
mod upgrade;
mod verbs;
#[allow(dead_code, reason = "benchmarks use the rest")]
#[path = "../../benches/load/wharf.rs"]
mod wharf;
mod writers;

use issuer as signer;
