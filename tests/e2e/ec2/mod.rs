//! The real SDK against an EC2 of our own: moto with tokens, capacity and lag, and one real sshd for each instance
//! (`tests/moto/control.py`).

mod account;
mod contract;
mod crowd;
mod faults;
mod killed;
mod launches;
mod life;
mod notices;
mod pace;
mod wiring;
