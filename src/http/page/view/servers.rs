//! The servers.

use super::fact;
use super::frame::role;
use crate::http::page::part::{clipped, others, time, visible};
use crate::pb;
use crate::rpc::Standing;
use maud::{Markup, html};

/// The server that answers.
pub(crate) struct Servers {
    pub(crate) standing: Standing,
    pub(crate) server: pb::GetServerResponse,
    pub(crate) warnings: Vec<String>,
}

/// The screen.
pub(crate) fn servers(shown: &Servers) -> Markup {
    html! {
        h1 { "Servers" }
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
