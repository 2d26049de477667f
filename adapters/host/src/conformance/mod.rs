//! The contract as a library of tests: what every [`Shell`] and every host
//! [`Adapter`](wharfinger_adapter::Adapter) must do, for any implementation, on a real host.
//!
//! Each function panics with a message that says which promise was broken. They wait on conditions with generous
//! bounds, so a slow machine makes them slow and not wrong. Commands need a POSIX sh, coreutils and `/proc`.

pub mod adapter;
pub mod shell;

use std::time::Duration;
use tokio::time::Instant;
use wharfinger_adapter::{Command, Shell};

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a shell line that must work, and returns what it printed.
async fn sh(shell: &dyn Shell, line: &str) -> String {
    let output = shell.run(Command::sh(line)).await.unwrap_or_else(|e| panic!("`{line}` could not be run: {e}"));
    assert!(output.exit.success(), "`{line}` ended with {:?}: {}", output.exit, output.complaint());
    output.text()
}

/// Waits until the shell line ends with code 0.
async fn until(shell: &dyn Shell, what: &str, line: &str) {
    let begun = Instant::now();
    loop {
        let output = shell.run(Command::sh(line)).await.unwrap_or_else(|e| panic!("`{line}` could not be run: {e}"));
        if output.exit.success() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?} (`{line}`): {}", output.complaint());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A condition for [`until`]: the process whose id is in this file is dead (a zombie is as good as dead).
fn dead(pid_file: &str) -> String {
    format!(
        "pid=$(cat {pid_file}) && [ -n \"$pid\" ] && {{ ! read -r line </proc/$pid/stat || \
         case \"${{line##*) }}\" in Z*|X*) true ;; *) false ;; esac; }} 2>/dev/null"
    )
}

/// A condition: the process whose id is in this file lives.
fn alive(pid_file: &str) -> String {
    format!("pid=$(cat {pid_file}) && read -r line </proc/$pid/stat && case \"${{line##*) }}\" in Z*|X*) false ;; esac")
}
