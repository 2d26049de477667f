//! Scenarios against EC2 in memory, with a stopped clock.

mod conformance;
mod doctor;
mod first_contact;
mod hour;
mod intent;
mod launches;
mod notices;
mod orphans;
mod simulation;
mod sweeps;
mod world;
