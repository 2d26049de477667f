//! `[cluster]`: several servers on one database.

use super::problem::{Problems, Span};
use super::reader::Reader;
use super::store::StoreConfig;
use std::time::Duration;
use toml::Spanned;
use wharfinger_core::Millis;

/// Default of the time after which a lead ends that is not renewed.
const LEAD: Millis = Millis::secs(5);
/// Default of the maximum age of a follower's answers.
const MAX_AGE: Millis = Millis::secs(10);

/// Placeholder in `advertise` for this machine's name, so that all servers can have the same file.
const HOSTNAME: &str = "{hostname}";

/// The name of this machine, from uname(2).
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The settings of one of several servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where clients find this server: `http://HOST:PORT`.
    pub advertise: String,
    /// Time after which a lead ends that is not renewed. It is about the time without a leader when one dies.
    pub lead: Duration,
    /// Maximum age of a follower's answers.
    pub max_age: Duration,
    /// Whether a follower forwards changes to the leader. Otherwise it refuses them.
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

/// Checks the table. `None`: there is no table, or it has mistakes, which are noted.
pub(crate) fn check(
    section: &ClusterSection,
    store: Option<&StoreConfig>,
    tls: bool,
    problems: &mut Problems,
) -> Option<Cluster> {
    let span = section.span.clone()?;
    if tls {
        problems.add(
            span.clone(),
            "servers of a [cluster] do not speak TLS with each other yet",
            "take [server.tls] out and let a proxy in front of the servers speak TLS, or let one server have the database",
        );
    }
    if let Some(StoreConfig::Sqlite(_)) = store {
        problems.add(
            span.clone(),
            "[cluster] is for servers that share a database; a file cannot be shared",
            "use engine = \"postgres\" in [store], or take [cluster] out",
        );
    }
    let Some(advertise) = &section.advertise else {
        problems.add(
            span,
            "this server has no address for clients",
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
            format!("`advertise` is not the address of a server: {:?}", advertise.get_ref()),
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
