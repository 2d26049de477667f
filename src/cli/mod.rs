//! The command line: one binary for the server, for build agents and for operators. With feature `agent` alone it has the verbs
//! that need no server in this program.
//!
//! Standard output has the answer: a table for people, or with `--json` one JSON document, or one line for each record.
//! Standard error has everything else. `exit.rs` has the exit codes, `json.rs` the API as JSON.

mod admin;
#[cfg(feature = "server")]
mod check_config;
mod ci;
mod complete;
mod connect;
#[cfg(feature = "server")]
mod db;
#[cfg(feature = "ec2")]
mod doctor;
mod error;
mod exit;
#[cfg(feature = "server")]
mod findings;
#[cfg(feature = "postgres")]
mod follow;
mod gitlab;
mod health;
mod held;
#[cfg(feature = "server")]
mod host_setup;
mod impact;
mod json;
mod keep;
mod lease;
mod machines;
mod on;
mod paging;
#[cfg(feature = "server")]
mod pki;
#[cfg(feature = "server")]
mod policy;
#[cfg(feature = "server")]
mod port;
mod read;
mod run;
mod select;
#[cfg(feature = "server")]
mod serve;
mod servers;
mod ssh;
mod ssh_config;
mod tenants;
mod text;
#[cfg(feature = "server")]
mod token;
mod token_source;
#[cfg(feature = "top")]
mod top;
mod trail;
mod ui;
mod verify_trail;
mod watch;
mod whoami;
mod why;

use clap::{CommandFactory, Parser, Subcommand};
use connect::Context;
use error::Failure;
use exit::Exit;
use std::process::ExitCode;
use ui::{ColorChoice, Ui};

/// Leases build infrastructure, and notices when it is gone
#[derive(Parser, Debug)]
#[command(name = "wharfinger", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// Address of the broker: HOST:PORT, https://HOST:PORT or unix:///PATH; several servers with commas between
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        env = "WHARFINGER_SERVER",
        default_value = "http://127.0.0.1:7411",
        help_heading = "Everywhere"
    )]
    server: String,
    /// The servers to which a server that follows may send this client on
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHICH",
        env = "WHARFINGER_FOLLOW_LEADER",
        default_value_t = FollowLeader::Listed,
        help_heading = "Everywhere"
    )]
    follow_leader: FollowLeader,
    #[command(flatten)]
    tls: connect::TlsArgs,
    #[command(flatten)]
    token: token_source::TokenArgs,
    /// Print JSON, for programs
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto, help_heading = "Everywhere")]
    color: ColorChoice,
    #[command(subcommand)]
    verb: Verb,
}

/// See [`crate::client::Follow`].
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FollowLeader {
    /// Those of --server
    Listed,
    /// Those on the hosts of --server, on any port
    SameHosts,
    /// All, in a closed network
    Anywhere,
}

impl From<FollowLeader> for crate::client::Follow {
    fn from(which: FollowLeader) -> Self {
        match which {
            FollowLeader::Listed => Self::Listed,
            FollowLeader::SameHosts => Self::SameHosts,
            FollowLeader::Anywhere => Self::Anywhere,
        }
    }
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run the broker
    #[cfg(feature = "server")]
    Serve(serve::ServeArgs),
    /// Lease, run a command on the leased host, and release; run it again elsewhere after a break
    ///
    /// Exits with the command's code (128 and the signal's number if a signal ended it), or with 75 when the lease was
    /// lost for good.
    Run(Box<run::RunArgs>),
    /// Open a shell on a leased or kept resource, in its tree, with its pinned host key
    Ssh(ssh::SshArgs),
    /// Print an OpenSSH configuration for the host of a lease, with a certificate that renews itself
    SshConfig(ssh_config::SshConfigArgs),
    /// Run a command in a lease that is held: behind the fence, without a retry or a release
    ///
    /// Exits with the command's code (128 and the signal's number if a signal ended it), or with 75 when the lease is lost.
    On(on::OnArgs),
    /// Renew a lease while a process or a file is there; it then ends by its TTL
    Keep(keep::KeepArgs),
    /// Be the driver of GitLab Runner's custom executor
    #[command(subcommand)]
    Gitlab(gitlab::Stage),
    /// Lease, run a command on this machine with WHARFINGER_* in its environment, and release
    Exec(run::ExecArgs),
    /// Lease, and print the lease
    Lease(lease::LeaseArgs),
    /// Renew a lease once
    Renew(lease::RenewArgs),
    /// End a lease
    Release(lease::ReleaseArgs),
    /// Report failures of the work: the resource is checked at once, the lease continues
    Report(lease::ReportArgs),
    /// Print a line for each change of a lease
    Watch(watch::WatchArgs),
    /// Print one lease
    Get(read::OneLease),
    /// List leases
    Ls(read::LsArgs),
    /// List the requests that wait, in the order of service, with their likely starts
    Queue(read::QueueArgs),
    /// Explain why a lease waits, or how it ended
    Explain(read::OneLease),
    /// Print the story of a lease or a resource, with its hosts and successor
    Why(why::WhyArgs),
    /// List pools
    Pools,
    /// List tenants with what each holds, waits for and may have; without the scope of all leases, the caller's own
    Tenants,
    /// List resources
    Resources(read::ResourcesArgs),
    /// Print one resource
    Resource(read::OneResource),
    /// Print the history of a pool, a resource, a lease or everything
    Events(trail::EventsArgs),
    /// Stop new leases on a resource, a machine or in a pool; on a machine it holds over reboots
    Cordon(admin::OnResourceOrPool),
    /// Allow new leases again; ends a drain too
    Uncordon(admin::OnResourceOrPool),
    /// Stop new leases on a resource, and destroy it when the last one ends; a machine stays away until undrain
    Drain(admin::DrainArgs),
    /// End a drain
    Undrain(admin::OnResource),
    /// Check a resource now
    Check(admin::OnResource),
    /// Mark a resource as mangled: it is repaired or replaced
    Taint(admin::OnResource),
    /// Keep a resource as it is, for triage; its leases are broken
    Quarantine(admin::OnResource),
    /// Keep a resource as it is for a while once its leases have ended; those go on
    Hold(admin::HoldArgs),
    /// End a quarantine or a hold; a check and a clean-up follow, and what was kept is deleted
    Recover(admin::OnResource),
    /// Destroy a resource and make another; its leases are broken
    Recycle(admin::OnResource),
    /// Write a note on a resource or a machine, which all readers see; an empty text removes it
    Note(admin::NoteArgs),
    /// End a lease against its holder's will
    Break(admin::BreakArgs),
    /// Forget a resource at once, in any state
    ForceDestroy(admin::OnResource),
    /// Print the caller as the server knows it, with its roles and their rules
    Whoami,
    /// Print whether the caller may use a verb in a pool; exits with 1 if not
    CanI(whoami::CanIArgs),
    /// Check that each server serves; exits with 69 if one does not
    Health(health::HealthArgs),
    /// Print who leads, since when, and how far each server follows
    Servers(servers::ServersArgs),
    /// Show what needs a person, pools, resources, the queue, leases and events in this terminal, live
    #[cfg(feature = "top")]
    Top(top::TopArgs),
    /// Print launches, interruptions and lack of capacity by instance type and zone
    #[command(alias = "weather")]
    SpotStats,
    /// Check that everything the configuration needs is reachable
    #[cfg(feature = "ec2")]
    #[command(subcommand)]
    Doctor(doctor::Patient),
    /// Make certificates for a few machines
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Pki(pki::PkiVerb),
    /// Make a token for a caller
    #[cfg(feature = "server")]
    Token(token::TokenArgs),
    /// Judge calls by the rules of a configuration
    #[cfg(feature = "server")]
    Policy(policy::PolicyArgs),
    /// Check a configuration, and print the settings that a server would use
    #[cfg(feature = "server")]
    CheckConfig(check_config::CheckConfigArgs),
    /// Print the script that prepares a host for logins by certificates of leases, or run it
    #[cfg(feature = "server")]
    HostSetup(host_setup::HostSetupArgs),
    /// Upgrade, dump, restore or move the database
    #[cfg(feature = "server")]
    Db(db::DbArgs),
    /// Print a completion script for a shell
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each verb, into a directory
    #[command(hide = true)]
    Man {
        /// Path of the directory, which has to exist
        directory: std::path::PathBuf,
    },
}

impl Verb {
    /// Whether it calls a server in the name of its user.
    fn calls(&self) -> bool {
        match self {
            #[cfg(feature = "server")]
            Verb::Serve(_)
            | Verb::Pki(_)
            | Verb::Token(_)
            | Verb::CheckConfig(_)
            | Verb::Db(_)
            | Verb::HostSetup(_)
            | Verb::Policy(_) => false,
            Verb::Health(_) | Verb::Completions { .. } | Verb::Man { .. } => false,
            _ => true,
        }
    }
}

impl Verb {
    /// The failure of a verb that cannot begin, for which those with a result file have written it.
    fn refused(&self, ui: Ui, failure: Failure) -> Failure {
        match self {
            Verb::Run(args) => args.refused(ui, failure),
            Verb::Exec(args) => args.refused(ui, failure),
            _ => failure,
        }
    }
}

/// Parses the command line and runs its command.
pub fn main() -> ExitCode {
    if complete::answered() {
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    let ui = Ui::new(cli.json, cli.color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.err(
                &Failure::new(Exit::Internal, format!("cannot start the thread pool: {error}")).render(ui.color_err),
            );
            return Exit::Internal.into();
        }
    };
    let done = runtime.block_on(dispatch(cli, ui));
    #[cfg(feature = "server")]
    if let Ok(Exit::Again) = done {
        // The tasks of the lost lead are dropped, and their commands killed.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        return begin_anew(ui);
    }
    // A thread that waits for a reader of its output must not delay the end.
    runtime.shutdown_background();
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                ui.err(&failure.render(ui.color_err));
            }
            failure.exit.into()
        }
    }
}

/// Replaces this process by the same program with the same arguments: it follows again, without any old state.
#[cfg(feature = "server")]
fn begin_anew(ui: Ui) -> ExitCode {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).exec();
    let failure =
        Failure::new(Exit::Again, format!("this server cannot restart itself: {error}")).remedy("start it again");
    ui.err(&failure.render(ui.color_err));
    failure.exit.into()
}

async fn dispatch(cli: Cli, ui: Ui) -> Result<Exit, Failure> {
    let (follow, tls) = (cli.follow_leader.into(), cli.tls.settings());
    let mut context = Context { server: cli.server, follow, token: token_source::Token::default(), tls, ui };
    if cli.verb.calls() {
        let token = token_source::token(&ui, &cli.token, &context.server);
        context.token = token.map_err(|failure| cli.verb.refused(ui, failure))?;
    }
    let context = &context;
    match cli.verb {
        #[cfg(feature = "server")]
        Verb::Serve(args) => serve::serve(&ui, &args).await,
        Verb::Run(args) => run::run(context, *args).await,
        Verb::Ssh(args) => ssh::ssh(context, args).await,
        Verb::SshConfig(args) => ssh_config::print(context, args).await,
        Verb::Exec(args) => run::exec(context, args).await,
        Verb::On(args) => on::on(context, args).await,
        Verb::Keep(args) => keep::keep(context, args).await,
        Verb::Gitlab(stage) => gitlab::gitlab(context, stage).await,
        Verb::Lease(args) => lease::lease(context, args).await,
        Verb::Renew(args) => lease::renew(context, args).await,
        Verb::Release(args) => lease::release(context, args).await,
        Verb::Report(args) => lease::report(context, args).await,
        Verb::Watch(args) => watch::watch(context, args).await,
        Verb::Get(args) => read::get(context, args).await,
        Verb::Ls(args) => read::ls(context, args).await,
        Verb::Queue(args) => read::queue(context, args).await,
        Verb::Explain(args) => read::explain(context, args).await,
        Verb::Why(args) => why::why(context, args).await,
        Verb::Pools => read::pools(context).await,
        Verb::Tenants => tenants::tenants(context).await,
        Verb::Resources(args) => read::resources(context, args).await,
        Verb::Resource(args) => read::resource(context, args).await,
        Verb::Events(args) => trail::events(context, args).await,
        Verb::Cordon(args) => admin::cordon(context, args, true).await,
        Verb::Uncordon(args) => admin::cordon(context, args, false).await,
        Verb::Drain(args) => admin::drain(context, args).await,
        Verb::Undrain(args) => admin::say(context, admin::Verb::Undrain, args).await,
        Verb::Check(args) => admin::say(context, admin::Verb::Check, args).await,
        Verb::Taint(args) => admin::say(context, admin::Verb::Taint, args).await,
        Verb::Quarantine(args) => admin::say(context, admin::Verb::Quarantine, args).await,
        Verb::Hold(args) => admin::hold(context, args).await,
        Verb::Recover(args) => admin::say(context, admin::Verb::Recover, args).await,
        Verb::Recycle(args) => admin::say(context, admin::Verb::Recycle, args).await,
        Verb::Note(args) => admin::note(context, args).await,
        Verb::Break(args) => admin::break_lease(context, args).await,
        Verb::ForceDestroy(args) => admin::say(context, admin::Verb::ForceDestroy, args).await,
        Verb::Whoami => whoami::whoami(context).await,
        Verb::CanI(args) => whoami::can_i(context, args).await,
        Verb::Health(args) => health::health(context, args).await,
        Verb::Servers(args) => servers::servers(context, args).await,
        #[cfg(feature = "top")]
        Verb::Top(args) => top::top(context, args).await,
        Verb::SpotStats => read::spot_stats(context).await,
        #[cfg(feature = "ec2")]
        Verb::Doctor(patient) => doctor::examine(&ui, &patient).await,
        #[cfg(feature = "server")]
        Verb::Pki(verb) => pki::pki(&ui, &verb),
        #[cfg(feature = "server")]
        Verb::Token(args) => token::token(&ui, &args),
        #[cfg(feature = "server")]
        Verb::Policy(args) => policy::policy(&ui, &args),
        #[cfg(feature = "server")]
        Verb::CheckConfig(args) => check_config::check(&ui, &args).await,
        #[cfg(feature = "server")]
        Verb::HostSetup(args) => host_setup::setup(&ui, &args),
        #[cfg(feature = "server")]
        Verb::Db(args) => db::db(&ui, args).await,
        Verb::Completions { shell } => completions(&ui, shell),
        Verb::Man { directory } => manual(&directory),
    }
}

fn completions(ui: &Ui, shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    complete::script(shell, &mut script)
        .map_err(|error| Failure::new(Exit::Internal, format!("the script can not be made: {error}")))?;
    ui.out(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Ok)
}

fn manual(directory: &std::path::Path) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Cli::command(), directory).map_err(|error| {
        Failure::new(Exit::BadData, format!("{} cannot take the manual pages: {error}", directory.display()))
            .remedy("name a directory that exists and that you may write to")
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests;
