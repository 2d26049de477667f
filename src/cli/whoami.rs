//! `whoami` and `can-i`: the caller to itself.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::Json;
use super::text;
use crate::pb;
use clap::Args;
use serde_json::json;

/// Arguments of `can-i`.
#[derive(Args, Debug)]
pub(crate) struct CanIArgs {
    /// Name of the verb, such as lease and resource.drain
    verb: String,
    /// Name of the pool; any if absent
    #[arg(default_value = "")]
    pool: String,
}

/// Prints the caller, its roles and their rules.
pub(crate) async fn whoami(context: &Context) -> Result<Exit, Failure> {
    let mut trust = context.connect().await?.trust();
    let who = context.ask(trust.who_am_i(pb::WhoAmIRequest {})).await?;
    let ui = context.ui;
    if ui.json {
        ui.document(&who.json())?;
        return Ok(Exit::Ok);
    }
    let expires = who.expires_at.as_ref().and_then(text::rfc3339).unwrap_or_else(|| "never".to_owned());
    let roles = if who.roles.is_empty() { "none".to_owned() } else { who.roles.join(", ") };
    for (name, value) in [
        ("principal", who.principal.as_str()),
        ("tenant", who.tenant.as_str()),
        ("proof", who.proof.as_str()),
        ("expires", expires.as_str()),
        ("roles", roles.as_str()),
    ] {
        ui.out(&format!("{name:<10}{}", text::one_line(value)))?;
    }
    let mut table = ui.table(&["ROLE", "VERBS", "POOLS", "LEASES", "LIMITS"]);
    for rule in &who.rules {
        let (verbs, pools) = (rule.verbs.join(" "), rule.pools.join(" "));
        table.add_row(vec![rule.role.as_str(), &verbs, &pools, scope(rule.scope()), &limits(&rule.limits)]);
    }
    ui.out("")?;
    ui.print(table, "no rule: this caller may do nothing")?;
    Ok(Exit::Ok)
}

/// Prints whether the caller may use a verb. Exits with 1 if not.
pub(crate) async fn can_i(context: &Context, args: CanIArgs) -> Result<Exit, Failure> {
    let mut trust = context.connect().await?.trust();
    let request = pb::CanIRequest { verb: args.verb, pool: args.pool };
    let can = context.ask(trust.can_i(request)).await?;
    let ui = context.ui;
    if ui.json {
        ui.document(&can.json())?;
    } else if can.allowed {
        let limits = limits(&can.limits);
        let limits = if limits.is_empty() { String::new() } else { format!("; limits: {limits}") };
        ui.out(&format!("yes, by role {}; leases: {}{limits}", text::one_line(&can.role), scope(can.scope())))?;
    } else {
        ui.out(&format!("no ({}): {}", can.reason, text::one_line(&can.message)))?;
    }
    Ok(if can.allowed { Exit::Ok } else { Exit::Command(1) })
}

fn scope(scope: pb::RuleScope) -> &'static str {
    match scope {
        pb::RuleScope::Own => "own",
        pb::RuleScope::Tenant => "tenant",
        pb::RuleScope::All => "all",
        pb::RuleScope::Unspecified => "-",
    }
}

fn limits(limits: &[pb::RuleLimit]) -> String {
    let each: Vec<String> = limits.iter().map(|limit| format!("{}: {}", limit.name, limit.allowed)).collect();
    text::one_line(&each.join("; "))
}

impl Json for pb::WhoAmIResponse {
    fn json(&self) -> serde_json::Value {
        json!({
            "tenant": self.tenant,
            "principal": self.principal,
            "roles": self.roles,
            "proof": self.proof,
            "expires_at": self.expires_at.as_ref().and_then(text::rfc3339),
            "rules": self.rules.iter().map(|rule| json!({
                "role": rule.role,
                "verbs": rule.verbs,
                "pools": rule.pools,
                "scope": scope(rule.scope()),
                "limits": limits_json(&rule.limits),
            })).collect::<Vec<_>>(),
        })
    }
}

impl Json for pb::CanIResponse {
    fn json(&self) -> serde_json::Value {
        json!({
            "allowed": self.allowed,
            "role": self.role,
            "scope": scope(self.scope()),
            "limits": limits_json(&self.limits),
            "reason": self.reason,
            "message": self.message,
        })
    }
}

fn limits_json(limits: &[pb::RuleLimit]) -> serde_json::Value {
    limits.iter().map(|limit| (limit.name.clone(), json!(limit.allowed))).collect::<serde_json::Map<_, _>>().into()
}
