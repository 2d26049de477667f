//! `[cluster]`: several servers on one database.

use super::problem::{Problems, Span};
use super::reader::Reader;
use super::store::StoreConfig;
use std::time::Duration;
use toml::Spanned;
use wharfinger_core::Millis;

/// How long a lead lasts that is not renewed, unless the configuration says otherwise.
const LEAD: Millis = Millis::secs(5);
/// How old what a follower says may be, unless the configuration says otherwise.
const MAX_AGE: Millis = Millis::secs(10);

/// In `advertise`: this machine's name, so that all servers can have the same file.
const HOSTNAME: &str = "{hostname}";

/// As the kernel says it, uname(2).
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// One of several servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where clients find this server: `http://HOST:PORT`.
    pub advertise: String,
    /// How long the lead lasts that is not renewed: about how long nobody leads when a leader dies.
    pub lead: Duration,
    /// One that follows says nothing that is older than this.
    pub max_age: Duration,
    /// One that follows passes on what changes something, else it refuses it.
    pub forward: bool,
}

/// `[cluster]` as read.
#[derive(Debug, Default)]
pub(crate) struct ClusterSection {
    span: Option<Span>,
    advertise: Option<Spanned<String>>,
    lead: Option<Spanned<Millis>>,
    max_age: Option<Spanned<Millis>>,
    forward: Option<Spanned<bool>>,
}

pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Problems) -> ClusterSection {
    let mut cluster = reader.table("cluster", "[cluster]", problems);
    let section = ClusterSection {
        span: cluster.span(),
        advertise: cluster.text("advertise", problems),
        lead: cluster.duration("lead", Millis::secs(1)..=Millis::secs(300), problems),
        forward: cluster.flag("forward", problems),
        max_age: cluster.duration("max_age", Millis::secs(1)..=Millis::secs(3600), problems),
    };
    cluster.finish(problems);
    section
}

/// What it says; `None` if there is no such table, or something is wrong, which is then noted.
pub(crate) fn check(section: &ClusterSection, store: Option<&StoreConfig>, problems: &mut Problems) -> Option<Cluster> {
    let span = section.span.clone()?;
    if let Some(StoreConfig::Sqlite(_)) = store {
        problems.add(
            span.clone(),
            "[cluster] is for servers that share a database, and a file can't be shared",
            "use engine = \"postgres\" in [store], or take [cluster] out",
        );
    }
    let Some(advertise) = &section.advertise else {
        problems.add(
            span,
            "this server does not say where clients find it",
            "add advertise = \"http://HOST:7411\", as the other machines reach it",
        );
        return None;
    };
    let text = advertise.get_ref().replace(HOSTNAME, &hostname());
    if text.contains(['{', '}']) {
        problems.add(
            advertise.span(),
            format!("`advertise` has a placeholder that is not known: {:?}", advertise.get_ref()),
            "the only one is {hostname}, this machine's name",
        );
        return None;
    }
    let place = text.strip_prefix("http://").filter(|place| !place.contains('/'));
    let port = place.and_then(|place| place.rsplit_once(':')).filter(|(host, _)| !host.is_empty());
    if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        problems.add(
            advertise.span(),
            format!("`advertise` is no address of a server: {:?}", advertise.get_ref()),
            "write it as clients do, as in \"http://broker-1.example.org:7411\"",
        );
        return None;
    }
    let time = |set: Option<&Spanned<Millis>>, otherwise: Millis| {
        let time = set.map_or(otherwise, |time| *time.get_ref());
        Duration::from_millis(u64::try_from(time.0).unwrap_or(0))
    };
    Some(Cluster {
        advertise: text,
        lead: time(section.lead.as_ref(), LEAD),
        max_age: time(section.max_age.as_ref(), MAX_AGE),
        forward: section.forward.as_ref().is_none_or(|forward| *forward.get_ref()),
    })
}
