//! Where a command runs: on the leased host through a shell, or here.

use super::here;
use super::login::Login;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::text;
use crate::pb;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wharfinger_adapter::{Command, InputSource, OutputSink, Shell, ShellError, Stream, access};
use wharfinger_host::containment::{Hit, hits};
use wharfinger_host::fence;
use wharfinger_local::LocalShell;
use wharfinger_ssh::{KeySource, Target, connect_shell};

/// How long what a killed command left behind may take to end: the shells give it two seconds of grace.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// How long the host is asked for what the limits of the lease did.
const ASK: Duration = Duration::from_secs(5);

/// Where it runs.
#[derive(Clone)]
pub(crate) enum Place {
    /// On the leased host, in the leased directory, behind the slot's fence.
    There {
        shell: Arc<dyn Shell>,
        dir: Option<String>,
        fence: Option<Fence>,
        /// Whether the host itself compares fence and token at each login, so that commands need not.
        enters: bool,
        /// Whether the slot has limits of its own.
        limited: bool,
    },
    /// On this machine, in this directory.
    Here,
}

/// The treatment of a command that a server names as the way to a host. It would run on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyCommand {
    Run,
    Refuse,
}

/// The file on the host that says whose the slot is, and our own token.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    path: String,
    token: u64,
}

impl Fence {
    /// The file, and the token that is ours.
    pub(crate) fn parts(&self) -> (String, u64) {
        (self.path.clone(), self.token)
    }
}

/// The command that runs.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// Its standard input, on a leased host.
    pub(crate) input: Option<Arc<dyn InputSource>>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("argv", &self.argv).field("env", &self.env).finish_non_exhaustive()
    }
}

impl Place {
    /// The leased host, by what the lease says of it.
    ///
    /// `login`: how the holder logs in, for a lease that [`pb::Lease::has_login`].
    pub(crate) fn there(
        lease: &pb::Lease,
        identity: Option<&Path>,
        proxy: ProxyCommand,
        login: Option<&Login>,
    ) -> Result<Self, Failure> {
        let pairs = lease.access_pairs();
        let known = |key: &str| pairs.get(key).cloned().filter(|value| !value.is_empty());
        let dir = known(access::PATH);
        let shell: Arc<dyn Shell> = match known(access::TRANSPORT).as_deref() {
            Some("local") => {
                same_machine(known(access::BOOT_ID).as_deref())?;
                Arc::new(LocalShell)
            }
            Some("ssh") => ssh(lease, &known, identity, proxy, login)?,
            Some(other) => {
                return Err(Failure::new(Exit::Internal, format!("this version cannot run commands over {other:?}"))
                    .remedy(
                        "use wharfinger exec --local -- COMMAND, which gets all it needs to know in WHARFINGER_*",
                    ));
            }
            None => {
                return Err(Failure::new(
                    Exit::BadData,
                    format!("nothing can run on {}: it says no transport", lease.resource_id),
                )
                .remedy("lease from a pool of hosts or of working copies"));
            }
        };
        let fence = known(access::FENCE).map(|path| Fence { path, token: lease.fencing_token });
        let limited = known(access::LIMITS).is_some();
        Ok(Place::There { shell, dir, fence, enters: login.is_some(), limited })
    }

    /// Runs commands in this directory; one that is not absolute is below the leased tree.
    pub(crate) fn go_to(&mut self, folder: &str) {
        if let Place::There { dir, .. } = self {
            let tree = dir.take().filter(|_| !folder.starts_with('/'));
            *dir = Some(
                tree.map_or_else(|| folder.to_string(), |tree| format!("{}/{folder}", tree.trim_end_matches('/'))),
            );
        }
    }

    /// Whether this end may be the fence's word that the slot is no longer ours. A command may use the same code.
    pub(crate) fn may_be_refused(&self, exit: &wharfinger_adapter::Exit) -> bool {
        let fenced = matches!(self, Place::There { fence: Some(_), .. });
        fenced && *exit == wharfinger_adapter::Exit::Code(fence::REFUSED)
    }

    /// The lease's own limits that the kernel acted for. None if the host does not say so soon.
    pub(crate) async fn hits(&self) -> Vec<Hit> {
        let Place::There { shell, fence: Some(fence), limited: true, .. } = self else { return Vec::new() };
        let asked = tokio::time::timeout(ASK, hits(shell.as_ref(), &fence.path)).await;
        asked.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Runs it to its end. Dropping the future kills it, and [`Place::settle`] waits until it is dead.
    pub(crate) async fn execute(&self, work: Work, printer: &Printer) -> Result<wharfinger_adapter::Exit, ShellError> {
        match self {
            Place::There { .. } => self.execute_to(work, printer.sink()).await,
            Place::Here => here::execute(work, printer).await,
        }
    }

    /// Runs it on the leased host with its output to this sink. Dropping the future kills it.
    pub(crate) async fn execute_to(
        &self,
        work: Work,
        output: OutputSink,
    ) -> Result<wharfinger_adapter::Exit, ShellError> {
        match self {
            Place::There { shell, dir, fence, enters, .. } => {
                let Work { argv, env, input } = work;
                let command = Command { argv, cwd: dir.clone(), env, input, ..Command::default() };
                let command = match fence {
                    Some(fence) if !enters => fence::guarded(command, &fence.path, fence.token),
                    Some(_) | None => command,
                };
                shell.stream(command, output).await
            }
            Place::Here => Err(ShellError::NotStarted("there is no leased host".into())),
        }
    }
}

/// `local` means the broker's machine; the boot id tells whether that is this one.
pub(crate) fn same_machine(boot_id: Option<&str>) -> Result<(), Failure> {
    let own = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match boot_id {
        Some(other) if !own.is_empty() && own.trim() != other => Err(Failure::new(
            Exit::Unavailable,
            "the leased host is the machine that the broker runs on, and this is another",
        )
        .remedy("run this command on that machine, or lease from a pool of ssh machines")),
        Some(_) | None => Ok(()),
    }
}

fn ssh(
    lease: &pb::Lease,
    known: &dyn Fn(&str) -> Option<String>,
    identity: Option<&Path>,
    proxy: ProxyCommand,
    login: Option<&Login>,
) -> Result<Arc<dyn Shell>, Failure> {
    let needed = |key: &str| {
        known(key).ok_or_else(|| {
            Failure::new(Exit::Internal, format!("the access of lease {} has no {key}", lease.id))
                .remedy("report it: an ssh host says address, user and host_key")
        })
    };
    let address = needed(access::ADDRESS)?;
    let proxy_command = known(access::PROXY_COMMAND);
    if let (Some(command), ProxyCommand::Refuse) = (&proxy_command, proxy) {
        let message = format!("the server says to reach {address} by a command, and nothing proves who that server is");
        return Err(Failure::new(Exit::Denied, message)
            .detail(format!("proxy_command: {command:?}"))
            .remedy("pass --allow-proxy-command if the network up to the server is trusted"));
    }
    let key = match (login, identity, lease.private_key().map(String::from)) {
        (Some(login), _, _) => KeySource::Certified(Arc::clone(&login.credential)),
        (None, Some(path), _) => KeySource::File(path.to_path_buf()),
        (None, None, Some(text)) => KeySource::Text(text),
        (None, None, None) => KeySource::File(own_key().ok_or_else(|| no_key(lease, &address))?),
    };
    let user = match login {
        Some(login) => login.way.user.clone(),
        None => needed(access::USER)?,
    };
    let target = Target {
        name: address.clone(),
        port: known(access::PORT).and_then(|port| port.parse().ok()).unwrap_or(22),
        user,
        key,
        host_key: needed(access::HOST_KEY)?,
        proxy_command,
        address,
    };
    connect_shell(&target).map_err(|error| refused(&error))
}

/// The failure for a host that refuses us.
pub(crate) fn refused(error: &ShellError) -> Failure {
    Failure::new(Exit::Denied, error.to_string()).remedy("name a key that the host takes with --identity KEYFILE")
}

/// The lease came without a key, and the user has none.
pub(crate) fn no_key(lease: &pb::Lease, address: &str) -> Failure {
    let failure = Failure::new(Exit::Denied, format!("there is no key to log in to {address} with")).remedy(
        "name one with --identity KEYFILE, or keep one in ~/.ssh/id_ed25519; a pool of hosts with holder_key hands one to each holder",
    );
    match &lease.missing_credentials {
        Some(missing) => failure.detail(text::missing(missing)),
        None => failure,
    }
}

pub(crate) fn own_key() -> Option<PathBuf> {
    let folder = std::env::home_dir()?.join(".ssh");
    ["id_ed25519", "id_ecdsa"].into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Passes a command's output on as it is, in a thread of its own: a slow reader slows the command and nothing else.
#[derive(Debug)]
pub(crate) struct Printer {
    sink: OutputSink,
    thread: tokio::task::JoinHandle<()>,
}

impl Printer {
    pub(crate) fn start() -> Self {
        let (sink, mut chunks): (OutputSink, _) = mpsc::channel(64);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some((stream, bytes)) = chunks.blocking_recv() {
                // A reader that has gone away is no reason to end a build: what it prints is lost, and that is all.
                let _ = match stream {
                    Stream::Stdout => put(&mut std::io::stdout().lock(), &bytes),
                    Stream::Stderr => put(&mut std::io::stderr().lock(), &bytes),
                };
            }
        });
        Self { sink, thread }
    }

    pub(crate) fn sink(&self) -> OutputSink {
        self.sink.clone()
    }

    /// Waits until all has been printed, which is when the command and what it started are dead.
    pub(crate) async fn settle(self) {
        self.settle_within(AFTER_KILL).await;
    }

    /// The same, for this time at most.
    pub(crate) async fn settle_within(self, limit: Duration) {
        drop(self.sink);
        let _ = tokio::time::timeout(limit.min(AFTER_KILL), self.thread).await;
    }
}

fn put(out: &mut dyn Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(access: &[(&str, &str)]) -> pb::Lease {
        let mut pairs: BTreeMap<String, String> = access.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let credentials = pairs.remove("private_key").map(|private_key| pb::Credentials { private_key });
        let access = Some(pb::Access::from_pairs(pairs));
        pb::Lease { id: "lse_1".into(), resource_id: "res_1".into(), access, credentials, ..pb::Lease::default() }
    }

    #[test]
    fn an_unreachable_place_is_reported_before_a_command_runs() {
        for (access, exit, says) in [
            (&[][..], Exit::BadData, "it says no transport"),
            (&[("transport", "winrm")], Exit::Internal, "cannot run commands over \"winrm\""),
            (&[("transport", "local"), ("boot_id", "another")], Exit::Unavailable, "and this is another"),
            (&[("transport", "ssh"), ("address", "h"), ("private_key", "x")], Exit::Internal, "has no user"),
            (
                &[
                    ("transport", "ssh"),
                    ("address", "h"),
                    ("user", "u"),
                    ("private_key", "x"),
                    ("host_key", "ssh-ed25519 A"),
                ],
                Exit::Denied,
                "not a usable private key",
            ),
        ] {
            let failure = Place::there(&lease(access), None, ProxyCommand::Refuse, None).err().expect(says);
            assert_eq!(failure.exit, exit, "{}", failure.message);
            assert!(failure.message.contains(says), "{}", failure.message);
        }
        assert!(Place::there(&lease(&[("transport", "local")]), None, ProxyCommand::Refuse, None).is_ok());
    }

    #[test]
    fn a_command_that_a_server_names_runs_only_where_it_is_allowed() {
        let access = [("transport", "ssh"), ("address", "h"), ("user", "u"), ("host_key", "ssh-ed25519 A")];
        let with: Vec<_> =
            access.into_iter().chain([("proxy_command", "touch /tmp/x"), ("private_key", "x")]).collect();
        let failure = |proxy| Place::there(&lease(&with), None, proxy, None).err().unwrap();
        let refused = failure(ProxyCommand::Refuse);
        assert_eq!(refused.exit, Exit::Denied);
        assert!(refused.message.contains("by a command"), "{}", refused.message);
        assert!(format!("{refused:?}").contains("--allow-proxy-command"), "{refused:?}");
        // Allowed, it gets as far as the key, which is none.
        let allowed = failure(ProxyCommand::Run);
        assert!(allowed.message.contains("not a usable private key"), "{}", allowed.message);
    }

    #[test]
    fn a_key_that_the_server_could_not_read_is_reported_with_its_reason() {
        let missing = pb::MissingCredentials { reason: "HOLDER_KEY_UNUSABLE".into(), detail: "ask".into() };
        let failure = no_key(&pb::Lease { missing_credentials: Some(missing), ..lease(&[]) }, "h");
        assert!(failure.details.iter().any(|detail| detail == "HOLDER_KEY_UNUSABLE: ask"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_command_runs_behind_the_fence_of_its_slot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fence.0");
        let text = path.to_str().unwrap();
        let ours = pb::Lease { fencing_token: 7, ..lease(&[("transport", "local"), ("fence", text)]) };
        let place = Place::there(&ours, None, ProxyCommand::Refuse, None).ok().unwrap();
        let printer = Printer::start();
        let run = async |code: &str| {
            let argv = ["/bin/sh", "-c", code].map(String::from).into();
            place.execute(Work { argv, env: BTreeMap::new(), input: None }, &printer).await.unwrap()
        };
        for (there, ours) in [("7\n", true), ("8\n", false), ("70\n", false), ("", false)] {
            std::fs::write(&path, there).unwrap();
            let exit = run("exit 5").await;
            assert_eq!(exit == wharfinger_adapter::Exit::Code(5), ours, "{there:?}: {exit:?}");
            assert_eq!(place.may_be_refused(&exit), !ours, "{there:?}");
        }
        std::fs::write(&path, "7\n").unwrap();
        assert!(place.may_be_refused(&run("exit 113").await), "a command's own 113 is for the broker to tell");
        let unfenced = Place::there(&lease(&[("transport", "local")]), None, ProxyCommand::Refuse, None).ok().unwrap();
        assert!(!unfenced.may_be_refused(&wharfinger_adapter::Exit::Code(113)));
    }
}
