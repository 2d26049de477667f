//! Completion of a shell's words: names that a server knows, beside those of the command line itself.
//!
//! A script of `wharfinger completions` runs this program with [`VARIABLE`] and the words so far. The program prints the candidates. It
//! prints no message: a shell would put one into the line that its user writes.

use super::Cli;
use super::connect::{Context, TlsArgs};
use super::token_source::{self, TokenArgs};
use super::ui::Ui;
use super::{FollowLeader, text};
use crate::client::Client;
use crate::pb;
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use std::ffi::OsStr;
use std::io;
use std::time::Duration;

/// The variable by which a script asks for candidates. Its value is the name of the shell.
const VARIABLE: &str = "WHARFINGER_COMPLETE";
/// Maximum time for which a person who presses the key waits.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Maximum number of candidates of a kind.
const MOST: i32 = 500;
/// Maximum number of characters of a holder.
const HOLDER: usize = 60;
/// Verbs that read leases, also those that have ended.
const READERS: [&str; 4] = ["get", "explain", "why", "events"];

/// The end of the script of zsh. In a directory of `fpath` the script is the body of `_wharfinger`, whose first call must complete too.
const AUTOLOAD: &str = "\nif [[ ${funcstack[1]} == _wharfinger ]]; then _clap_dynamic_completer_wharfinger; fi\n";

/// The names that a server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pool,
    /// A lease that has not ended.
    Lease,
    /// A lease in any state.
    AnyLease,
    Resource,
    Machine,
}

/// A candidate, and a note on it.
type Found = (String, String);

impl Kind {
    /// The kinds of values that an argument of a verb takes, by the words of its help.
    fn of(verb: &str, arg: &Arg) -> Vec<Self> {
        let names = arg.get_value_names().unwrap_or_default();
        let words = names.iter().flat_map(|name| name.as_str().split('|'));
        words
            .filter_map(|word| match word {
                "POOL" => Some(Self::Pool),
                "LEASE" if READERS.contains(&verb) => Some(Self::AnyLease),
                "LEASE" => Some(Self::Lease),
                "RESOURCE" => Some(Self::Resource),
                "MACHINE" => Some(Self::Machine),
                _ => None,
            })
            .collect()
    }

    /// Asks the server. `None`: it refuses, or does not answer.
    async fn ask(self, client: &Client) -> Option<Vec<Found>> {
        match self {
            Self::Pool => {
                let answer = client.admin().list_pools(pb::ListPoolsRequest::default()).await.ok()?.into_inner();
                Some(answer.pools.into_iter().map(|pool| (pool.name, pool.adapter)).collect())
            }
            Self::Machine => {
                let answer = client.admin().list_pools(pb::ListPoolsRequest::default()).await.ok()?.into_inner();
                let machines = answer.pools.into_iter().flat_map(|pool| pool.items);
                Some(machines.map(|machine| (format!("{}/{}", machine.pool, machine.name), "machine".into())).collect())
            }
            Self::Resource => {
                let request = pb::ListResourcesRequest { page_size: MOST, ..pb::ListResourcesRequest::default() };
                let answer = client.admin().list_resources(request).await.ok()?.into_inner();
                Some(
                    answer
                        .resources
                        .into_iter()
                        .map(|resource| (resource.id.clone(), of_resource(&resource)))
                        .collect(),
                )
            }
            Self::Lease | Self::AnyLease => {
                let states = if self == Self::AnyLease { all_states() } else { Vec::new() };
                let request = pb::ListRequest { states, page_size: MOST, ..pb::ListRequest::default() };
                let answer = client.list(request).await.ok()?;
                Some(answer.leases.into_iter().map(|lease| (lease.id.clone(), of_lease(&lease))).collect())
            }
        }
    }
}

fn all_states() -> Vec<i32> {
    (1..).map_while(|state| pb::LeaseState::try_from(state).ok()).map(i32::from).collect()
}

fn of_resource(resource: &pb::Resource) -> String {
    format!("{} in {}", text::resource_state(resource), text::one_line(&resource.pool))
}

fn of_lease(lease: &pb::Lease) -> String {
    let pool = if lease.pool.is_empty() { text::selector(lease.selector.as_ref()) } else { lease.pool.clone() };
    let holder: String = text::one_line(&lease.holder).chars().take(HOLDER).collect();
    format!("{} in {}, {holder}", text::lease_state(lease), text::one_line(&pool))
}

/// Answers a shell that completes. Returns false if no shell asks.
pub(super) fn answered() -> bool {
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(definition).var(VARIABLE);
    // A failure has no reader either: the shell shows no candidates.
    asked.try_complete(std::env::args_os(), here.as_deref()).unwrap_or(true)
}

/// Writes the script of a shell, which runs the program that PATH has.
pub(super) fn script(shell: Shell, out: &mut dyn io::Write) -> io::Result<()> {
    let missing = || io::Error::other(format!("{shell} has no script"));
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or_else(missing)?;
    completer.write_registration(VARIABLE, "wharfinger", "wharfinger", "wharfinger", out)?;
    match shell {
        Shell::Zsh => out.write_all(AUTOLOAD.as_bytes()),
        _ => Ok(()),
    }
}

/// The command line, with the names of a server as values.
fn definition() -> Command {
    with_names(Cli::command())
}

fn with_names(command: Command) -> Command {
    let verb = command.get_name().to_owned();
    let command = command.mut_args(|arg| {
        let kinds = Kind::of(&verb, &arg);
        if kinds.is_empty() { arg } else { arg.add(ArgValueCompleter::new(move |word: &OsStr| named(&kinds, word))) }
    });
    command.mut_subcommands(with_names)
}

/// The names of these kinds that begin with a word.
fn named(kinds: &[Kind], word: &OsStr) -> Vec<CompletionCandidate> {
    let Some((word, context)) = word.to_str().zip(context()) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let found = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, ask(&context, kinds)).await.ok().flatten().unwrap_or_default()
    });
    // A name that is being looked up must not delay the end.
    runtime.shutdown_background();
    let fits = found.into_iter().filter(|(name, _)| name.starts_with(word) && is_plain(name));
    fits.map(|(name, note)| CompletionCandidate::new(name).help(Some(note.into()))).collect()
}

/// Whether a shell takes a text for one word and nothing else: names come from a server.
fn is_plain(name: &str) -> bool {
    !name.starts_with('-') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._/:@+=-".contains(c))
}

async fn ask(context: &Context, kinds: &[Kind]) -> Option<Vec<Found>> {
    let client = Client::connect_with(&context.server, context.options(Duration::ZERO)).await.ok()?;
    let mut found = Vec::new();
    for kind in kinds {
        found.extend(kind.ask(&client).await.unwrap_or_default());
    }
    Some(found)
}

/// The way to the server, by the words so far and the environment.
fn context() -> Option<Context> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    let server = matches.get_one::<String>("server")?.clone();
    let follow = matches.get_one::<FollowLeader>("follow_leader").copied().unwrap_or(FollowLeader::Listed);
    let ui = Ui::mute();
    let token = token_source::token(&ui, &TokenArgs::from_arg_matches(&matches).ok()?, &server).ok()?;
    let tls = TlsArgs::from_arg_matches(&matches).ok()?.settings();
    Some(Context { server, follow: follow.into(), token, tls, ui })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(verb: &str, id: &str) -> Vec<Kind> {
        let mut command = definition();
        command.build();
        let verb = command.find_subcommand(verb).unwrap_or_else(|| panic!("{verb} is missing"));
        let arg = verb.get_arguments().find(|arg| arg.get_id() == id).unwrap_or_else(|| panic!("{id} is missing"));
        let kinds = Kind::of(verb.get_name(), arg);
        assert_eq!(arg.get::<ArgValueCompleter>().is_some(), !kinds.is_empty(), "{id} of {verb}");
        kinds
    }

    #[test]
    fn arguments_are_completed_by_the_words_of_their_help() {
        assert_eq!(kinds("run", "pool"), [Kind::Pool]);
        assert_eq!(kinds("run", "branch"), []);
        assert_eq!(kinds("on", "lease"), [Kind::Lease]);
        assert_eq!(kinds("why", "id"), [Kind::AnyLease, Kind::Resource, Kind::Machine]);
        assert_eq!(kinds("drain", "places"), [Kind::Resource, Kind::Machine]);
        assert_eq!(kinds("events", "lease"), [Kind::AnyLease]);
        assert_eq!(all_states().len(), 8);
    }

    #[test]
    fn a_name_that_a_shell_would_obey_is_no_candidate() {
        for name in ["work", "linux/builder-3", "lse_1", "a.b:c@d+e=f"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["a b", "$(reboot)", "a;b", "-x", "a`b", "a\nb", "ä", "*", "~root/\u{0}", "'"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn each_shell_has_a_script_that_asks_the_program() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut text = Vec::new();
            script(shell, &mut text).unwrap_or_else(|error| panic!("{shell}: {error}"));
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains(VARIABLE) && text.contains("wharfinger"), "{shell}: {text}");
        }
    }
}
