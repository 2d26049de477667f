//! `policy`: the rules of a configuration, without a server. They are judged by the server's own code.

mod cases;

use super::check_config::load;
use super::error::Failure;
use super::exit::Exit;
use super::ui::Ui;
use crate::auth::{AuthError, Identity, Role, Trust, Verb};
use crate::config::{ConfigError, Loaded};
use crate::rpc::{RpcError, judge};
use cases::{ALLOWED, Case, Who};
use clap::{Args, Subcommand};
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;
use tonic::Status;
use tonic_types::StatusExt;

/// Arguments of `policy`.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(Subcommand, Debug)]
enum PolicyVerb {
    /// Judge the calls of a file by the rules of a configuration; exits with 1 if an outcome is another than expected
    ///
    /// The file has one [[case]] for each call: `caller` ("token:ID", "x509:URI") or `roles`, `verb`, `pool`, the request (`count`,
    /// `ttl`, `queue_for`, `no_queue`, `priority`, `replace`, `labels`, `params`, `tags`), `lease` ("own", "tenant", "other"),
    /// `outcome`, `hold`, and `expect`: "allowed", or the reason of the refusal.
    Test(TestArgs),
    /// List the callers that may use a verb in a pool
    WhoCan(WhoCanArgs),
    /// Print the rules of roles, the built-in ones too, as a configuration has them
    Roles(RolesArgs),
}

#[derive(Args, Debug)]
struct TestArgs {
    /// File of the cases
    file: PathBuf,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct WhoCanArgs {
    /// Name of the verb, such as lease and resource.drain
    #[arg(value_parser = verb)]
    verb: Verb,
    /// Name of the pool; any if absent
    pool: Option<String>,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct RolesArgs {
    /// Names of the roles; all if absent
    names: Vec<String>,
    /// Configuration file; the built-in roles alone if absent
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn verb(text: &str) -> Result<Verb, String> {
    Verb::parse(text).ok_or_else(|| Verb::remedy(text))
}

/// Runs `policy`.
pub(crate) fn policy(ui: &Ui, args: &PolicyArgs) -> Result<Exit, Failure> {
    match &args.verb {
        PolicyVerb::Test(args) => test(ui, args),
        PolicyVerb::WhoCan(args) => who_can(ui, args),
        PolicyVerb::Roles(args) => roles(ui, args),
    }
}

/// The outcome of a case.
struct Outcome {
    /// [`ALLOWED`], or the reason of the refusal.
    is: String,
    field: Option<String>,
    message: String,
}

impl Outcome {
    fn of(judged: Result<(), RpcError>) -> Self {
        let Err(error) = judged else {
            return Self { is: ALLOWED.to_owned(), field: None, message: String::new() };
        };
        let status = Status::from(error);
        let details = status.get_error_details();
        let field = details.bad_request().and_then(|bad| bad.field_violations.first()).map(|field| field.field.clone());
        let is = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        Self { is, field, message: status.message().to_owned() }
    }

    fn is_as(&self, case: &Case) -> bool {
        self.is == case.expect && case.field.as_ref().is_none_or(|field| self.field.as_ref() == Some(field))
    }
}

fn test(ui: &Ui, args: &TestArgs) -> Result<Exit, Failure> {
    let loaded = load(ui, &args.config)?;
    let cases = cases::read(&args.file).map_err(|error| match error {
        ConfigError::Invalid(report) => {
            ui.err(&report.render(ui.color_err));
            Failure::silent(Exit::Config)
        }
        other @ ConfigError::Unreadable { .. } => other.into(),
    })?;
    let trust = Trust::everyone();
    trust.set(loaded.auth.clone()).map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    let mut table = ui.table(&["LINE", "CASE", "CALLER", "EXPECTED", "IS", "WHY"]);
    let (mut wrong, mut results) = (0, Vec::new());
    for case in &cases {
        let (who, identity) = caller(&trust, &loaded, case)?;
        let judged = identity.map_err(RpcError::from).and_then(|who| judge(&who, &case.call, &loaded.pools));
        let outcome = Outcome::of(judged);
        let good = outcome.is_as(case);
        results.push(json!({
            "line": case.line, "case": case.name, "caller": who, "expected": case.expect, "is": outcome.is,
            "field": outcome.field, "message": outcome.message, "ok": good,
        }));
        if !good {
            wrong += 1;
            let with = |is: &str, field: &Option<String>| match field {
                Some(field) => format!("{is} {field}"),
                None => is.to_owned(),
            };
            let expected = with(&case.expect, &case.field);
            let is = with(&outcome.is, &outcome.field);
            let line = case.line.to_string();
            table.add_row(vec![&line, &case.name, &who, &expected, &is, &outcome.message]);
        }
    }
    let exit = if wrong == 0 { Exit::Ok } else { Exit::Command(1) };
    if ui.json {
        ui.document(&json!({ "cases": results, "wrong": wrong }))?;
        return Ok(exit);
    }
    if wrong > 0 {
        ui.print(table, "")?;
    }
    let count = cases.len();
    ui.out(&match wrong {
        0 => format!("{}: {count} of {count} as expected", args.file.display()),
        _ => format!("{}: {wrong} of {count} not as expected", args.file.display()),
    })?;
    Ok(exit)
}

/// The caller of a case, in words and as the server knows it.
fn caller(trust: &Trust, loaded: &Loaded, case: &Case) -> Result<(String, Result<Identity, AuthError>), Failure> {
    match &case.who {
        Who::Principal(name) => Ok((name.clone(), trust.principal(name))),
        Who::Roles(names) => {
            let roles = loaded.roles.roles(names.iter().map(String::as_str)).map_err(|name| {
                Failure::new(Exit::Config, format!("line {}: no role has the name {name:?}", case.line))
                    .remedy("`wharfinger policy roles --config FILE` lists them")
            })?;
            Ok((roles.to_string(), Ok(Identity::with_roles("policy-test", "roles", roles))))
        }
    }
}

fn who_can(ui: &Ui, args: &WhoCanArgs) -> Result<Exit, Failure> {
    let loaded = load(ui, &args.config)?;
    let pool = args.pool.as_deref();
    if let Some(name) = pool.filter(|name| !loaded.pools.iter().any(|pool| *pool.name == **name)) {
        return Err(Failure::new(Exit::BadData, format!("{} has no pool {name:?}", args.config.display())));
    }
    let Some(callers) = &loaded.auth else {
        ui.warn("without [auth] everyone who reaches the port is an administrator");
        return Ok(Exit::Ok);
    };
    let mut table = ui.table(&["CALLER", "TENANT", "RULE", "SCOPE", "LIMITS"]);
    let mut found = Vec::new();
    for grant in callers.each() {
        let Some(rule) = grant.roles.best(args.verb, pool) else { continue };
        let limits: Vec<String> = rule.limits.iter().map(|(name, allowed)| format!("{name}: {allowed}")).collect();
        table.add_row(vec![&*grant.caller, grant.tenant, &rule.name, rule.scope.as_str(), &limits.join("; ")]);
        found.push(json!({
            "caller": grant.caller, "tenant": grant.tenant, "rule": rule.name, "scope": rule.scope.as_str(),
            "limits": rule.limits.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }));
    }
    if ui.json {
        ui.document(&json!({ "callers": found }))?;
        return Ok(Exit::Ok);
    }
    ui.print(table, "no caller may")?;
    Ok(Exit::Ok)
}

fn roles(ui: &Ui, args: &RolesArgs) -> Result<Exit, Failure> {
    let table = match &args.config {
        Some(path) => load(ui, path)?.roles,
        None => crate::auth::RoleTable::default(),
    };
    let unknown = args.names.iter().find(|name| table.get(name).is_none());
    if let Some(name) = unknown {
        let known: Vec<&str> = table.iter().map(|role| &*role.name).collect();
        return Err(Failure::new(Exit::BadData, format!("no role has the name {name:?}"))
            .remedy(format!("the roles are {}; --config FILE adds those of a configuration", known.join(", "))));
    }
    let wanted =
        |role: &&std::sync::Arc<Role>| args.names.is_empty() || args.names.iter().any(|name| **name == *role.name);
    let texts: Vec<String> = table.iter().filter(wanted).map(|role| toml_of(role)).collect();
    ui.out(texts.join("\n").trim_end())?;
    Ok(Exit::Ok)
}

/// A role as a configuration has it, with each verb by its name.
fn toml_of(role: &Role) -> String {
    let quoted = |texts: Vec<String>| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
    let mut text = format!("[[role]]\nname = {:?}\n", role.name);
    for rule in &role.rules {
        let verbs = quoted(rule.verbs.iter().map(|verb| verb.to_string()).collect());
        let pools = quoted(rule.pools.patterns().iter().map(ToString::to_string).collect());
        // Writing to a String cannot fail.
        let _ =
            write!(text, "[[role.allow]]\nverbs = [{verbs}]\npools = [{pools}]\nscope = {:?}\n", rule.scope.as_str());
        let limits = rule.limits.shown();
        if !limits.is_empty() {
            let _ = writeln!(text, "# limits");
        }
        for (name, allowed) in limits {
            let _ = writeln!(text, "#   {name}: {allowed}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
