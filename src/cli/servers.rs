//! `servers`: asks each server of the list by itself who leads, since when, and how far it follows.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::text;
use crate::client::{Client, Follow};
use crate::pb;
use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Maximum time for the answer of one server.
const PATIENCE: Duration = Duration::from_secs(3);

/// The silence after which a server is taken for down: it reports every five seconds.
const SILENT: Duration = Duration::from_secs(15);

/// Arguments of `servers`.
#[derive(Args, Debug)]
pub(crate) struct ServersArgs {
    /// Print the servers that the database knows, as each reported itself last, in place of those of --server
    #[arg(long)]
    known: bool,
}

/// The columns of the table.
pub(super) const COLUMNS: [&str; 8] =
    ["SERVER", "ROLE", "SINCE", "EPOCH", "REVISION", "BEHIND", "VERSION", "CONFIGURATION"];

/// The answer of one server.
pub(super) struct Said {
    server: String,
    answer: Result<pb::GetServerResponse, String>,
}

/// Asks, prints a line for each server, and ends with 0 if all answer and one leads.
pub(crate) async fn servers(context: &Context, args: ServersArgs) -> Result<Exit, Failure> {
    if args.known {
        return known(context).await;
    }
    let said = ask_each(context).await;
    if context.ui.json {
        context.ui.document(&json!({ "servers": said.iter().map(told).collect::<Vec<_>>() }))?;
    } else {
        print(context, &said)?;
    }
    for fault in faults(&said) {
        context.ui.warn(&fault);
    }
    let leaders = said.iter().filter(|one| one.answer.as_ref().is_ok_and(|server| server.leads)).count();
    let well = leaders == 1 && said.iter().all(|one| one.answer.is_ok());
    Ok(if well { Exit::Ok } else { Exit::Unavailable })
}

/// Prints the reports of all servers, from one of them. Ends with 0 if none is silent and one leads.
async fn known(context: &Context) -> Result<Exit, Failure> {
    let servers = context.connect().await?.servers().await.map_err(|error| context.failure(error))?;
    if context.ui.json {
        context.ui.document(&json!({ "servers": servers.iter().map(reported).collect::<Vec<_>>() }))?;
    } else {
        let mut table = context.ui.table(&[&COLUMNS[..], &["REPORTED"]].concat());
        for server in &servers {
            table.add_row(row(server));
        }
        context.ui.print(table, "no server has reported")?;
    }
    let leads = servers.iter().any(|server| state(server) == "LEADS");
    let well = leads && servers.iter().all(|server| state(server) != "SILENT");
    Ok(if well { Exit::Ok } else { Exit::Unavailable })
}

/// `LEADS`, `FOLLOWS` or `SILENT`, by its report.
fn state(server: &pb::Server) -> &'static str {
    let silent = server.silent.and_then(|silent| Duration::try_from(silent).ok()).unwrap_or_default();
    match (silent > SILENT, server.leads) {
        (true, _) => "SILENT",
        (false, true) => "LEADS",
        (false, false) => "FOLLOWS",
    }
}

/// The row of a report.
fn row(server: &pb::Server) -> Vec<String> {
    let none = || "-".to_owned();
    let or_none = |text: String| if text.is_empty() { none() } else { text };
    vec![
        or_none(text::one_line(&server.address)),
        state(server).to_owned(),
        text::clock(server.leads_since.as_ref()),
        if server.epoch == 0 { none() } else { server.epoch.to_string() },
        server.revision.to_string(),
        if server.leads { none() } else { text::span(server.age.as_ref()) },
        text::one_line(&server.version),
        or_none(text::one_line(&server.configuration)),
        text::span(server.silent.as_ref()),
    ]
}

fn reported(server: &pb::Server) -> Value {
    let ms = |span: Option<prost_types::Duration>| {
        let span = span.and_then(|span| Duration::try_from(span).ok());
        span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    };
    json!({
        "server": server.address,
        "state": state(server),
        "leads_since": server.leads_since.as_ref().and_then(text::rfc3339),
        "epoch": server.epoch,
        "revision": server.revision,
        "age_ms": ms(server.age),
        "version": server.version,
        "configuration": server.configuration,
        "configuration_refused_since": server.configuration_refused_since.as_ref().and_then(text::rfc3339),
        "silent_ms": ms(server.silent),
    })
}

/// Asks each server of the list.
pub(super) async fn ask_each(context: &Context) -> Vec<Said> {
    let addresses = context.server.split(',').map(str::trim).filter(|address| !address.is_empty());
    join_all(addresses.map(|address| ask(context, address))).await
}

async fn ask(context: &Context, address: &str) -> Said {
    // No refusal leads to another server: each answers for itself.
    let options = crate::client::ClientOptions { follow: Follow::Listed, ..context.options(Duration::ZERO) };
    let answer = tokio::time::timeout(PATIENCE, async {
        let client = Client::connect_with(address, options).await?;
        client.server().await
    });
    let answer = match answer.await {
        Ok(Ok(server)) => Ok(server),
        Ok(Err(error)) => Err(context.failure(error).message),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Said { server: address.to_owned(), answer }
}

fn print(context: &Context, said: &[Said]) -> Result<(), Failure> {
    let mut table = context.ui.table(&COLUMNS);
    for one in said {
        table.add_row(cells(one));
    }
    context.ui.print(table, "no server is named")
}

/// The row of a server.
pub(super) fn cells(one: &Said) -> Vec<String> {
    let none = || "-".to_owned();
    match &one.answer {
        Ok(server) => vec![
            one.server.clone(),
            role(server),
            text::clock(server.leads_since.as_ref()),
            if server.epoch == 0 { none() } else { server.epoch.to_string() },
            server.revision.to_string(),
            if server.leads { none() } else { text::span(server.age.as_ref()) },
            server.version.clone(),
            if server.configuration.is_empty() { none() } else { server.configuration.clone() },
        ],
        Err(why) => {
            let mut row = vec![one.server.clone(), format!("SILENT: {}", text::one_line(why))];
            row.resize_with(COLUMNS.len(), none);
            row
        }
    }
}

/// `LEADS`, or whom it follows.
pub(super) fn role(server: &pb::GetServerResponse) -> String {
    match (server.leads, &*server.leader) {
        (true, _) => "LEADS".into(),
        (false, "") => "FOLLOWS no one".into(),
        (false, leader) => format!("FOLLOWS {}", text::one_line(leader)),
    }
}

fn told(one: &Said) -> Value {
    match &one.answer {
        Err(why) => json!({ "server": one.server, "state": "SILENT", "detail": why }),
        Ok(server) => json!({
            "server": one.server,
            "state": if server.leads { "LEADS" } else { "FOLLOWS" },
            "leader": server.leader,
            "leads_since": server.leads_since.as_ref().and_then(text::rfc3339),
            "epoch": server.epoch,
            "revision": server.revision,
            "age_ms": server.age.and_then(|age| Duration::try_from(age).ok()).map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            "version": server.version,
            "configuration": server.configuration,
            "configuration_refused_since": server.configuration_refused_since.as_ref().and_then(text::rfc3339),
            "configuration_problem": server.configuration_problem,
        }),
    }
}

/// Faults between the servers, as sentences.
fn faults(said: &[Said]) -> Vec<String> {
    let up: Vec<&pb::GetServerResponse> = said.iter().filter_map(|one| one.answer.as_ref().ok()).collect();
    let leaders = up.iter().filter(|server| server.leads).count();
    let mut faults = Vec::new();
    if leaders == 0 && !up.is_empty() {
        faults.push("no server of the list leads: name all of them in --server, or wait for the election".to_owned());
    }
    if leaders > 1 {
        faults.push(format!(
            "{leaders} servers of the list lead: they are of several deployments, or one of them has just lost its lead"
        ));
    }
    for one in said {
        if let Ok(server) = &one.answer
            && server.configuration_refused_since.is_some()
        {
            let since = text::clock(server.configuration_refused_since.as_ref());
            let why = text::one_line(&server.configuration_problem);
            faults.push(format!("{} uses an earlier configuration since {since}: {why}", one.server));
        }
    }
    let different = |values: BTreeSet<&str>| values.len() > 1;
    if different(up.iter().map(|server| &*server.configuration).filter(|text| !text.is_empty()).collect()) {
        faults.push("the servers have different configuration files: compare them, and reload".to_owned());
    }
    if different(up.iter().map(|server| &*server.version).collect()) {
        faults.push("the servers have different versions: end the upgrade".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(leads: bool, configuration: &str, version: &str) -> Said {
        let answer = pb::GetServerResponse {
            leads,
            configuration: configuration.into(),
            version: version.into(),
            ..pb::GetServerResponse::default()
        };
        Said { server: "a:1".into(), answer: Ok(answer) }
    }

    #[test]
    fn differences_between_servers_are_reported() {
        let well = || vec![said(true, "a", "1"), said(false, "a", "1"), said(false, "", "1")];
        assert_eq!(faults(&well()), Vec::<String>::new());
        assert_eq!(faults(&[Said { server: "a:1".into(), answer: Err("away".into()) }]), Vec::<String>::new());
        for (other, fault) in [
            (said(true, "a", "1"), "2 servers of the list lead"),
            (said(false, "b", "1"), "different configuration files"),
            (said(false, "a", "2"), "different versions"),
        ] {
            let mut all = well();
            all.push(other);
            let found = faults(&all);
            assert!(found.len() == 1 && found[0].contains(fault), "{found:?}");
        }
        assert!(faults(&[said(false, "a", "1")])[0].contains("no server of the list leads"));
    }
}
