//! Scenarios against EC2 in memory, with the clock in the test's hand.

mod conformance;
mod doctor;
mod hour;
mod intent;
mod launches;
mod notices;
mod orphans;
mod simulation;
mod sweeps;
mod world;
