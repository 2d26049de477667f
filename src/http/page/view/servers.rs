//! The servers of the cluster, and the one that answers.

use super::frame::role;
use super::{cell, fact, head};
use crate::http::page::part::{clipped, others, time, visible};
use crate::overview;
use crate::pb;
use crate::rpc::Standing;
use maud::{Markup, html};

/// The servers.
pub(crate) struct Servers {
    pub(crate) standing: Standing,
    /// The server that answers.
    pub(crate) server: pb::GetServerResponse,
    /// All servers on its database, as each reported itself last.
    pub(crate) all: Vec<pb::Server>,
    pub(crate) warnings: Vec<String>,
}

/// The screen.
pub(crate) fn servers(shown: &Servers) -> Markup {
    let faults = overview::server_faults(&shown.all);
    html! {
        h1 { "Servers" }
        @if !faults.is_empty() { ul.strip role="alert" { @for fault in &faults { li { (fault) } } } }
        section aria-labelledby="all" {
            h2 #all { "All on this database" }
            (table(&shown.all))
            p.none { "Each server reports itself every five seconds. " code { "wharfinger servers" } " asks each by itself." }
        }
        section aria-labelledby="this" {
            h2 #this { "The server that answers" }
            dl.facts {
                (fact("Role", &html! { (role(&shown.standing)) }))
                (fact("Version", &html! { (clipped(&shown.server.version)) ", API minor version " (shown.server.api_minor) }))
                (fact("Parts", &html! { (clipped(&shown.server.features.join(", "))) }))
                @if shown.server.leads_since.is_some() { (fact("Leads since", &html! { (time(shown.server.leads_since.as_ref())) ", epoch " (shown.server.epoch) })) }
                @if !shown.server.configuration.is_empty() { (fact("Configuration", &html! { code { (visible(&shown.server.configuration)) } ": servers that differ here have different files" })) }
                @if let Some(since) = &shown.server.configuration_refused_since { (fact("Refused", &html! { "a later text of the file, " (time(Some(since))) ": " (others(&shown.server.configuration_problem)) })) }
                (fact("Data", &html! { @if shown.standing.fresh { "recent" } @else { "too old for an answer" } }))
                @for warning in &shown.warnings { (fact("Clock", &others(warning))) }
            }
            p { "All servers of a cluster: " code { "wharfinger servers --server A:7411,B:7411,C:7411" } }
        }
    }
}

fn table(all: &[pb::Server]) -> Markup {
    let leader = overview::leader(all).map(|server| server.address.clone());
    html! {
        table {
            caption.unseen { "The servers, by address" }
            (head(&["Server", "Role", "Since", "Epoch", "Revision", "Behind", "Version", "Configuration", "Reported"]))
            tbody {
                @for server in all {
                    tr {
                        (cell("Server", &html! { @if server.address.is_empty() { "this server" } @else { bdi { (clipped(&server.address)) } } }))
                        (cell("Role", &html! { b { (word(server, leader.as_deref())) } }))
                        (cell("Since", &time(server.leads_since.as_ref())))
                        (cell("Epoch", &html! { @if server.epoch == 0 { span.none { "–" } } @else { (server.epoch) } }))
                        (cell("Revision", &html! { (server.revision) }))
                        (cell("Behind", &html! { @if server.leads { span.none { "–" } } @else { (seconds(server.age.as_ref(), "nothing read yet")) } }))
                        (cell("Version", &html! { (clipped(&server.version)) }))
                        (cell("Configuration", &html! { code { (visible(&server.configuration)) } @if server.configuration_refused_since.is_some() { " a later text was refused" } }))
                        (cell("Reported", &html! { (seconds(server.silent.as_ref(), "never")) " ago" }))
                    }
                }
            }
        }
    }
}

/// The role of a server in a word.
fn word(server: &pb::Server, leader: Option<&str>) -> &'static str {
    match (overview::is_silent(server), server.leads, leader == Some(&*server.address)) {
        (true, ..) => "silent",
        (false, true, true) => "leads",
        (false, true, false) => "has lost its lead",
        (false, false, _) => "follows",
    }
}

/// A length of time in seconds, with a tenth.
fn seconds(span: Option<&prost_types::Duration>, none: &str) -> String {
    match span {
        Some(span) => format!("{}.{} s", span.seconds, span.nanos / 100_000_000),
        None => none.to_owned(),
    }
}
