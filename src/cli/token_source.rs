//! The caller's token: from the environment, a file, a command, or the CI product that runs this program.

use super::error::Failure;
use super::exit::Exit;
use super::ui::Ui;
use crate::client::{AuthToken, Credentials};
use clap::{Args, ValueEnum};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The beginning of all variables with a token, or with the way to one. What runs for a lease gets none of them.
const OURS: &str = "WHARFINGER_AUTH_";
/// The variable of GitLab's `id_tokens` that `--oidc gitlab` reads.
const GITLAB: &str = "WHARFINGER_ID_TOKEN";
/// The beginning of the variables with which GitHub Actions gives tokens.
const GITHUB: &str = "ACTIONS_ID_TOKEN_REQUEST_";
/// The projected token of a pod.
const KUBERNETES: &str = "/var/run/secrets/wharfinger/token";
/// The environment's variables, and what they hold, in the order in which they count.
const FILE: &str = "WHARFINGER_AUTH_TOKEN_FILE";
const COMMAND: &str = "WHARFINGER_AUTH_TOKEN_COMMAND";
const TEXT: &str = "WHARFINGER_AUTH_TOKEN";

/// The token of the caller, or its source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token {
    pub(crate) text: Option<AuthToken>,
    pub(crate) credentials: Option<Credentials>,
}

/// The CI product that runs this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Oidc {
    /// A job of GitHub Actions with `permissions: id-token: write`
    Github,
    /// A job of GitLab with `id_tokens: WHARFINGER_ID_TOKEN: aud: AUDIENCE`
    Gitlab,
    /// A job of Buildkite, by buildkite-agent
    Buildkite,
    /// A pod with a projected token at /var/run/secrets/wharfinger/token
    Kubernetes,
}

/// How to get a token.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TokenArgs {
    /// Call with a token of this CI product, whose job this is
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "PRODUCT",
        env = "WHARFINGER_OIDC",
        help_heading = "Everywhere"
    )]
    oidc: Option<Oidc>,
    /// Audience of that token, as the server's configuration has it; https://HOST of --server if absent
    #[arg(long, global = true, value_name = "TEXT", env = "WHARFINGER_AUDIENCE", help_heading = "Everywhere")]
    audience: Option<String>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

/// The token of the caller, by the command line and the environment.
pub(crate) fn token(ui: &Ui, args: &TokenArgs, server: &str) -> Result<Token, Failure> {
    if let Some(product) = args.oidc {
        let audience = args.audience.clone().unwrap_or_else(|| audience_of(server));
        return of_product(ui, product, &audience);
    }
    if let Some(path) = variable(FILE) {
        let path = PathBuf::from(path);
        check_mode(ui, &path);
        return Ok(from(Credentials::file(path)));
    }
    if let Some(line) = variable(COMMAND) {
        return Ok(from(Credentials::command(arguments(&line)?)));
    }
    let Some(text) = variable(TEXT) else { return Ok(Token::default()) };
    fixed(&text, TEXT)
}

fn from(credentials: Credentials) -> Token {
    Token { text: None, credentials: Some(credentials) }
}

fn fixed(text: &str, name: &str) -> Result<Token, Failure> {
    let wrong =
        || Failure::new(Exit::Credentials, format!("{name} holds no token")).remedy("set it to one, or unset it");
    Ok(Token { text: Some(AuthToken::new(text).ok_or_else(wrong)?), credentials: None })
}

fn of_product(ui: &Ui, product: Oidc, audience: &str) -> Result<Token, Failure> {
    let missing = |name: &str, remedy: &str| {
        Failure::new(Exit::Credentials, format!("{name} is not set")).remedy(remedy.to_owned())
    };
    match product {
        Oidc::Github => {
            let part = |name: &str| {
                let name = format!("{GITHUB}{name}");
                variable(&name).ok_or_else(|| missing(&name, "give the job `permissions: id-token: write`"))
            };
            Ok(from(Credentials::github(&part("URL")?, &part("TOKEN")?, audience, None)))
        }
        Oidc::Gitlab => {
            let remedy = format!("give the job `id_tokens: {GITLAB}: aud: {audience}`");
            let text = variable(GITLAB).ok_or_else(|| missing(GITLAB, &remedy))?;
            fixed(&text, GITLAB)
        }
        Oidc::Buildkite => {
            // Grants name the organisation or the pipeline by its id, which is no claim of each token.
            let argv = ["buildkite-agent", "oidc", "request-token", "--audience", audience];
            let claims = ["--claim", "organization_id", "--claim", "pipeline_id"];
            Ok(from(Credentials::command(argv.into_iter().chain(claims).map(String::from).collect())))
        }
        Oidc::Kubernetes => {
            let path = Path::new(KUBERNETES);
            check_mode(ui, path);
            Ok(from(Credentials::file(path)))
        }
    }
}

/// Warns of a file that others may read. The client reads it, and says what is wrong with it.
fn check_mode(ui: &Ui, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map(|about| about.permissions().mode()).unwrap_or_default();
    if mode & 0o007 != 0 && path != Path::new(KUBERNETES) {
        let shown = path.display();
        ui.warn(&format!("others on this machine may read or write the token file {shown}: chmod o= it"));
    }
}

/// The words of a command: a JSON list, or words with blanks between. There is no shell, and there are no quotes.
fn arguments(line: &str) -> Result<Vec<String>, Failure> {
    if !line.trim_start().starts_with('[') {
        return Ok(line.split_whitespace().map(String::from).collect());
    }
    serde_json::from_str(line).map_err(|error| {
        let message = format!("{COMMAND} is no list of words: {error}");
        Failure::new(Exit::Credentials, message).remedy(r#"write it as in ["program", "an argument"]"#)
    })
}

/// The audience of the first server: its host, without a port.
fn audience_of(server: &str) -> String {
    let first = server.split(',').next().unwrap_or_default().trim();
    let authority = first.rsplit_once("://").map_or(first, |(_, authority)| authority);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    format!("https://{host}")
}

/// Whether a variable of the environment holds a token of the caller, or the way to one.
pub(crate) fn is_secret(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(OURS) || name == GITLAB
}

/// The variables of this environment with which GitHub Actions gives tokens. A build may need them for itself.
pub(crate) fn oidc_variables() -> impl Iterator<Item = String> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(GITHUB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_words_and_no_shell() {
        assert_eq!(arguments("helper  --for x").unwrap(), ["helper", "--for", "x"]);
        assert_eq!(arguments(r#"["my helper", "$(x)"]"#).unwrap(), ["my helper", "$(x)"]);
        for wrong in ["[", r#"["a", 1]"#, r#"{"a":1}"#] {
            assert!(!wrong.starts_with('[') || arguments(wrong).unwrap_err().exit == Exit::Credentials, "{wrong}");
        }
    }

    #[test]
    fn an_audience_is_the_host_of_the_first_server() {
        for (server, audience) in [
            ("https://broker.example.org:7411", "https://broker.example.org"),
            ("broker:7411, other:7411", "https://broker"),
            ("https://[::1]:7411", "https://[::1]"),
        ] {
            assert_eq!(audience_of(server), audience);
        }
    }

    #[test]
    fn the_command_of_a_lease_gets_no_source_of_tokens() {
        let secret = |name: &str| is_secret(OsStr::new(name));
        for name in [FILE, COMMAND, TEXT, GITLAB, "WHARFINGER_AUTH_ANYTHING"] {
            assert!(secret(name), "{name}");
        }
        for name in ["WHARFINGER_TOKEN", "WHARFINGER_SERVER", "PATH", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"] {
            assert!(!secret(name), "{name}");
        }
    }
}
