//! The frame of all screens: the bar, the navigation, and what makes all else doubtful.

use crate::http::page::part::{clipped, to, visible};
use crate::http::page::screen::{EventFilter, LeaseFilter, ResourceFilter, Screen};
use crate::rpc::Standing;
use maud::{DOCTYPE, Markup, html};

/// The colours of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Those of the system.
    #[default]
    Auto,
    Light,
    Dark,
}

impl Theme {
    const EACH: [Self; 3] = [Self::Auto, Self::Light, Self::Dark];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub(crate) fn parse(word: &str) -> Self {
        Self::EACH.into_iter().find(|theme| theme.word() == word).unwrap_or_default()
    }

    fn next(self) -> Self {
        match self {
            Self::Auto => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::Auto,
        }
    }
}

/// The frame of one answer.
pub(crate) struct Frame<'f> {
    pub(crate) title: &'f str,
    pub(crate) theme: Theme,
    /// The address of the screen, for what comes back to it.
    pub(crate) url: &'f str,
    /// The entry of the navigation.
    pub(crate) at: Option<&'f Screen>,
    pub(crate) standing: &'f Standing,
    /// The principal. `None`: no caller is signed in.
    pub(crate) who: Option<&'f str>,
    /// Whether a session can be ended.
    pub(crate) signed_in: bool,
    /// The folder of the assets.
    pub(crate) assets: &'f str,
    /// Whether the screen changes by itself.
    pub(crate) live: bool,
    /// Report of the verb that was just carried out. Empty: none was.
    pub(crate) done: &'f str,
}

/// The navigation, in its order.
fn entries() -> [(&'static str, Screen); 9] {
    [
        ("Now", Screen::Now),
        ("Pools", Screen::Pools),
        ("Resources", Screen::Resources(ResourceFilter::default())),
        ("Queue", Screen::queue("")),
        ("Leases", Screen::Leases(LeaseFilter::default())),
        ("Events", Screen::Events(EventFilter::default())),
        ("Map", Screen::Map { pool: String::new(), by: String::new() }),
        ("Spot", Screen::SpotStats),
        ("Servers", Screen::Servers),
    ]
}

/// The entry that a screen belongs to.
fn belongs(screen: &Screen) -> &'static str {
    match screen {
        Screen::Now => "Now",
        Screen::Pools | Screen::Pool(_) => "Pools",
        Screen::Resources(_) | Screen::Resource { .. } => "Resources",
        Screen::Queue { .. } => "Queue",
        Screen::Leases(_) | Screen::Lease(_) => "Leases",
        Screen::Events(_) => "Events",
        Screen::Map { .. } => "Map",
        Screen::SpotStats => "Spot",
        Screen::Servers => "Servers",
    }
}

/// The role of the server that answers, in words.
pub(crate) fn role(standing: &Standing) -> String {
    match (standing.leads, &standing.leader) {
        (true, _) => "this server leads".into(),
        (false, Some(leader)) => format!("this server follows {}", clipped(leader)),
        (false, None) => "no leader is known".into(),
    }
}

/// The report of a configuration that was refused; empty for none.
pub(crate) fn configuration(standing: &Standing) -> String {
    standing
        .refused
        .as_ref()
        .map_or_else(String::new, |refused| format!("The configuration before stays: {}", visible(&refused.why)))
}

/// The whole page around a screen.
pub(crate) fn frame(frame: &Frame<'_>, main: &Markup) -> Markup {
    let belongs = frame.at.map(belongs);
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(frame.theme.word()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (frame.title) " · Wharfinger" }
                link rel="stylesheet" href=(format!("{}/page.css", frame.assets));
                link rel="icon" href="data:,";
                script src=(format!("{}/idiomorph.min.js", frame.assets)) defer {}
                script src=(format!("{}/page.js", frame.assets)) type="module" {}
            }
            body data-live=[frame.live.then_some(frame.url)] data-revision=(frame.standing.revision) {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "Wharfinger" }
                    form.jump action="/go" method="get" role="search" {
                        label for="jump" { "Jump to" }
                        input #jump name="q" type="search" placeholder="lease, resource, machine, build URL" autocomplete="off" maxlength="1000";
                        button { "Go" }
                    }
                    span #role { (role(frame.standing)) }
                    span #age { "revision " (frame.standing.revision) }
                    button #pause type="button" hidden { "Pause" }
                    form action="/theme" method="post" {
                        input type="hidden" name="to" value=(frame.url);
                        input type="hidden" name="theme" value=(frame.theme.next().word());
                        button { "Colours: " (frame.theme.word()) }
                    }
                    @if let Some(who) = frame.who {
                        span.who { bdi { (clipped(who)) } }
                        @if frame.signed_in { form action="/sign-out" method="post" { button { "Sign out" } } }
                    }
                }
                nav.side aria-label="Screens" {
                    ul {
                        @for (name, screen) in entries() {
                            li {
                                @if belongs == Some(name) { a href=(screen.url()) aria-current="page" { (name) } }
                                @else { (to(&screen, name)) }
                            }
                        }
                    }
                }
                div #stale.strip role="status" hidden[frame.standing.fresh] {
                    @if !frame.standing.fresh { "This server has not heard of the leader's commits for too long: what it shows may be old." }
                }
                div #configuration.strip role="status" hidden[frame.standing.refused.is_none()] { (configuration(frame.standing)) }
                @if !frame.done.is_empty() { div.strip.done role="status" { (frame.done) } }
                div #told.unseen role="status" aria-live="polite" {}
                main #main tabindex="-1" { (main) }
            }
        }
    }
}
