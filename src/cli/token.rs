//! `token new`: makes a token, for one bearer, and the lines with which a server knows it.

use super::error::Failure;
use super::exit::Exit;
use super::ui::Ui;
use crate::auth::{BuiltIn, NewToken, hex};
use clap::{Args, Subcommand};
use serde_json::json;

/// Arguments of `token`.
#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Subcommand, Debug)]
enum TokenVerb {
    /// Make a token: print it once, and the lines of the configuration that know it by its hash
    New(NewArgs),
}

#[derive(Args, Debug)]
struct NewArgs {
    /// Id of the token: 1 to 32 of a to z, 0 to 9 and -
    id: String,
    /// Tenant of its bearer
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Roles of its bearer: agent, reader, lead, admin, or those of a [[role]] of the configuration
    #[arg(long = "role", value_name = "ROLE", value_parser = role, default_value = "agent")]
    roles: Vec<String>,
    /// Time at which it expires, in UTC, or "never"
    #[arg(long, value_name = "TIME")]
    expires: String,
}

fn role(text: &str) -> Result<String, String> {
    let names = BuiltIn::ALL.map(BuiltIn::as_str).join(", ");
    let wrong = || format!("use one of {names}, or the name of a [[role]]: 1 to 63 of a to z, 0 to 9 and -");
    wharfinger_adapter::settings::is_name(text).then(|| text.to_owned()).ok_or_else(wrong)
}

/// A role of each of these names that is not built in, for the check of the lines.
fn with_roles(lines: &str, roles: &[String]) -> String {
    let own = roles.iter().filter(|name| !BuiltIn::ALL.iter().any(|role| role.as_str() == *name));
    own.fold(lines.to_owned(), |text, name| {
        let rule = "verbs = [\"get\"]\npools = [\"*\"]\nscope = \"own\"\n";
        format!("{text}[[role]]\nname = {name:?}\n[[role.allow]]\n{rule}")
    })
}

/// Runs `token`.
pub(crate) fn token(ui: &Ui, args: &TokenArgs) -> Result<Exit, Failure> {
    let TokenVerb::New(NewArgs { id, tenant, roles, expires }) = &args.verb;
    let new = NewToken::make(id).map_err(|error| Failure::new(Exit::BadData, error.to_string()))?;
    let list = roles.iter().map(|role| format!("{role:?}")).collect::<Vec<_>>().join(", ");
    let lines = format!(
        "[[auth.token]]\nid = {id:?}\nsha256 = {:?}\ntenant = {tenant:?}\nroles = [{list}]\nexpires = {expires:?}\n",
        hex(&new.sha256)
    );
    // The printed digest is the one that a server takes.
    crate::config::parse(std::path::Path::new("wharfinger.toml"), &with_roles(&lines, roles))
        .map_err(|error| Failure::new(Exit::BadData, error.to_string()))?;
    if ui.json {
        ui.document(&json!({ "token": new.text, "sha256": hex(&new.sha256), "configuration": lines }))?;
    } else {
        ui.err(&format!(
            "for the configuration of each server:\n\n{lines}\nthe token, for its bearer alone, shown once:\n"
        ));
        ui.out(&new.text)?;
    }
    Ok(Exit::Ok)
}
