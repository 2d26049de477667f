//! Faults of other systems, and cases that they are known to get right, as scenarios of ours. Each test is named for where the case
//! was met (project and issue, or the test of theirs); `docs/acceptance.md` lists them all.

mod grant;
mod health;
mod life;
mod loss;
