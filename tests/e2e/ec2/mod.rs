//! The real SDK against moto with client tokens, capacity and lag, and one real sshd per instance (`tests/moto/control.py`).

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
