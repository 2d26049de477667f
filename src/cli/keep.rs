//! `keep`: renews a lease while a process or a file is there. It releases nothing: the lease then ends by its TTL.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::held;
use super::run::signals::Signals;
use super::text;
use crate::client::{ClientError, LeaseGuard, Lost};
use clap::Args;
use rustix::process::{Pid, test_kill_process};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How often process and file are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a keeper in the background may take until it holds the lease.
const START: Duration = Duration::from_secs(90);
/// The word of a keeper that holds the lease.
const HOLDS: &str = "holds";

/// Arguments of `keep`.
#[derive(Args, Debug)]
pub(crate) struct KeepArgs {
    /// Which
    #[arg(value_name = "LEASE", env = "WHARFINGER_LEASE")]
    lease: String,
    /// Renew it while this process is there
    #[arg(long, value_name = "PID", required_unless_present = "file")]
    pid: Option<u32>,
    /// Renew it while this file is there
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Go on in the background, in a session of its own, and print the number of the process there
    #[arg(long)]
    detach: bool,
    /// Exit with this code, in place of 75, when the lease is lost
    #[arg(long, value_name = "CODE", env = "WHARFINGER_EXIT_LOST", value_parser = clap::value_parser!(u8).range(1..))]
    exit_lost: Option<u8>,
    /// Number of the start of that process, in the background
    #[arg(long, hide = true, value_name = "START")]
    detached: Option<String>,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    /// Its start, in ticks since the start of the machine. `None`: this system does not tell.
    start: Option<String>,
}

impl Process {
    fn find(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let process = Self { pid, start: start_of(pid) };
        process.is_there().then_some(process)
    }

    fn is_there(&self) -> bool {
        match &self.start {
            Some(start) => start_of(self.pid).as_ref() == Some(start),
            // Of another user: it is there, and cannot be asked.
            None => test_kill_process(self.pid).is_ok() || test_kill_process(self.pid) == Err(rustix::io::Errno::PERM),
        }
    }
}

/// The start of a process by /proc, unless it has ended and waits for its parent.
fn start_of(pid: Pid) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name of the program may have blanks and parentheses.
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(String::from)
}

/// Keeps it.
pub(crate) async fn keep(context: &Context, args: KeepArgs) -> Result<Exit, Failure> {
    if args.detached.is_some() {
        // A group of its own: a CI product ends a job by its group.
        let _ = rustix::process::setsid();
    }
    let process = match args.pid {
        Some(pid) => Some(Process::find(pid).ok_or_else(|| gone(&args, &format!("process {pid} is not there")))?),
        None => None,
    };
    if let Some(file) = args.file.as_ref().filter(|file| !file.exists()) {
        return Err(gone(&args, &format!("{} is not there", file.display())));
    }
    if args.detach {
        return detach(context);
    }
    let mut signals = Signals::listen()?;
    let client = context.connect_patient().await?;
    let id = &args.lease;
    let lease = client.get(id).await.map_err(|error| context.failure(error))?;
    if lease.is_over() {
        return Err(held::lost(&Lost::Ended(Arc::new(lease)), args.exit_lost));
    }
    if lease.may_work() {
        // A lease that cannot be renewed is reported at once.
        match client.renew(id, None).await {
            Ok(_) | Err(ClientError::Unavailable(_)) => {}
            Err(error) => {
                // It may have ended in this moment.
                return Err(match client.get(id).await {
                    Ok(lease) if lease.is_over() => held::lost(&Lost::Ended(Arc::new(lease)), args.exit_lost),
                    Ok(_) | Err(_) => context.failure(error),
                });
            }
        }
    }
    let guard = client.keep(lease);
    if args.detached.is_some() {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{HOLDS}").and_then(|()| out.flush());
    } else {
        context.ui.event(&format!("lease {id} is renewed"));
    }
    tokio::select! {
        signal = signals.recv() => {
            context.ui.event(&format!("lease {id} is no longer renewed ({})", signal.name()));
            Ok(signal.exit())
        }
        why = until_gone(process, args.file.clone()) => {
            // Of one that a session keeps, the TTL counts from now.
            let lease = guard.lease();
            let left = match lease.expires_at.as_ref() {
                Some(at) => text::until(Some(at)),
                None => text::span(lease.ttl.as_ref()),
            };
            context.ui.event(&format!("lease {id} is no longer renewed and ends in {left}: {why}"));
            Ok(Exit::Ok)
        }
        lost = broken(&guard) => Err(held::lost(&lost, args.exit_lost)),
    }
}

async fn broken(guard: &LeaseGuard) -> Lost {
    guard.broken().await
}

fn gone(args: &KeepArgs, what: &str) -> Failure {
    Failure::new(Exit::BadData, format!("{what}: lease {} is not renewed", args.lease))
}

async fn until_gone(process: Option<Process>, file: Option<PathBuf>) -> String {
    loop {
        if let Some(process) = process.as_ref().filter(|process| !process.is_there()) {
            return format!("process {} has ended", process.pid.as_raw_nonzero());
        }
        if let Some(file) = file.as_ref().filter(|file| !file.exists()) {
            return format!("{} is gone", file.display());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Starts the same in the background, and waits until it holds the lease.
fn detach(context: &Context) -> Result<Exit, Failure> {
    let internal = |why: String| Failure::new(Exit::Internal, format!("no keeper can be started: {why}"));
    let program = std::env::current_exe().map_err(|error| internal(error.to_string()))?;
    // The arguments as they are, with those of the connection; `--detach` gives way to `--detached`.
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    let mut child = Command::new(program)
        .args(arguments)
        .args(["--detached", "yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| internal(error.to_string()))?;
    let pid = child.id();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let out = child.stdout.take();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = out.map(|out| BufReader::new(out).read_line(&mut line));
        let _ = sender.send(matches!(read, Some(Ok(_))) && line.trim_end() == HOLDS);
    });
    if receiver.recv_timeout(START).unwrap_or(false) {
        context.ui.out(&pid.to_string())?;
        return Ok(Exit::Ok);
    }
    let _ = child.kill();
    let output = child.wait_with_output().map_err(|error| internal(error.to_string()))?;
    let code = output.status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code > 0);
    let said = String::from_utf8_lossy(&output.stderr);
    context.ui.err(said.trim_end());
    Err(Failure::silent(code.map_or(Exit::Internal, Exit::Command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_distinguished_from_a_later_one_of_its_number() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        assert!(process.is_there());
        assert!(!Process { start: Some("1".into()), ..process.clone() }.is_there());
        child.kill().unwrap();
        // It is not waited for yet: a process that has ended is gone all the same.
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while process.is_there() && tokio::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!process.is_there());
        child.wait().unwrap();
        assert_eq!(Process::find(0), None);
    }
}
