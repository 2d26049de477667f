//! `exec --local`: the command runs on this machine, with our input and output, in a process group that can be killed.

use super::contract;
use super::place::{Printer, Work};
use crate::cli::token_source::is_secret;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wharfinger_adapter::{Exit, OutputSink, ShellError};

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// A process group; dropped, it is ended: asked first, killed after the grace.
struct Group {
    pid: Option<Pid>,
    /// Held until the group is dead, so that a wait for the printer is one for that.
    printer: Option<OutputSink>,
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(pid) = self.pid.take() else { return };
        let printer = self.printer.take();
        let _ = kill_process_group(pid, Signal::TERM);
        // Ends after `GRACE`.
        tokio::spawn(async move {
            let end = Instant::now() + GRACE;
            while test_kill_process_group(pid).is_ok() && Instant::now() < end {
                sleep(Duration::from_millis(20)).await;
            }
            let _ = kill_process_group(pid, Signal::KILL);
            drop(printer);
        });
    }
}

/// Runs it to its end; dropping the future ends it.
pub(crate) async fn execute(work: Work, printer: &Printer) -> Result<Exit, ShellError> {
    let Some((program, arguments)) = work.argv.split_first() else {
        return Err(ShellError::NotStarted("the command is empty: it must name a program".into()));
    };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).envs(&work.env).process_group(0);
    // The command works on the lease, and does not speak for who leased it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_secret(name)) {
        command.env_remove(name);
    }
    for name in contract::VARIABLES {
        command.env_remove(name);
    }
    // A group of its own may not read the terminal: the kernel would stop it (SIGTTIN) for ever.
    command.stdin(if std::io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() });
    let mut child =
        command.spawn().map_err(|error| ShellError::NotStarted(format!("{program:?} cannot be started: {error}")))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group { pid, printer: Some(printer.sink()) };
    let status = child.wait().await;
    // It ended by itself: what it left in the background is its own business, as in any shell.
    group.pid = None;
    let status = status.map_err(|error| ShellError::Unreachable(format!("the command's end is not known: {error}")))?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0).to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(line: &str) -> Work {
        Work {
            argv: ["/bin/sh", "-c", line].map(String::from).into(),
            env: [("WHARFINGER_X".into(), "y".into())].into(),
            input: None,
        }
    }

    #[tokio::test]
    async fn a_commands_end_is_reported() {
        let printer = Printer::start();
        assert_eq!(execute(work("exit 7"), &printer).await, Ok(Exit::Code(7)));
        assert_eq!(execute(work("kill -KILL $$"), &printer).await, Ok(Exit::Signal("9".into())));
        assert_eq!(execute(work("test $WHARFINGER_X = y"), &printer).await, Ok(Exit::Code(0)));
        let missing = Work { argv: vec!["/no/such".into()], env: [].into(), input: None };
        assert!(matches!(execute(missing, &printer).await, Err(ShellError::NotStarted(_))));
        printer.settle().await;
    }

    #[tokio::test]
    async fn a_dropped_command_is_dead_when_all_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let printer = Printer::start();
        let line = format!("sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait", pid_file.display());
        {
            let running = execute(work(&line), &printer);
            tokio::pin!(running);
            loop {
                tokio::select! {
                    ended = &mut running => panic!("ended early: {ended:?}"),
                    () = sleep(Duration::from_millis(10)) => if pid_file.exists() { break },
                }
            }
        }
        printer.settle().await;
        let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let gone = || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        assert!(gone(), "process {pid} is still there");
    }
}
