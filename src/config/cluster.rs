//! `[cluster]`: several servers on one database.

use super::cluster_tls::{self, ClusterTls, ClusterTlsSection};
use super::problem::{Problems, Span};
use super::reader::Reader;
use super::store::StoreConfig;
use super::tls::Tls;
use std::path::Path;
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
    /// Where clients and the other servers find this one: `http://HOST:PORT`, with TLS `https://HOST:PORT`.
    pub advertise: String,
    /// Time after which a lead ends that is not renewed. It is about the time without a leader when one dies.
    pub lead: Duration,
    /// Maximum age of a follower's answers.
    pub max_age: Duration,
    /// Whether a follower forwards changes to the leader. Otherwise it refuses them.
    pub forward: bool,
    /// TLS between the servers. `None`: they speak none.
    pub tls: Option<ClusterTls>,
}

/// `[cluster]` as read.
#[derive(Debug, Default)]
pub(crate) struct ClusterSection {
    span: Option<Span>,
    advertise: Option<Spanned<String>>,
    lead: Option<Spanned<Millis>>,
    max_age: Option<Spanned<Millis>>,
    forward: Option<Spanned<bool>>,
    tls: ClusterTlsSection,
}

pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Problems) -> ClusterSection {
    let mut cluster = reader.table("cluster", "[cluster]", problems);
    let section = ClusterSection {
        span: cluster.span(),
        advertise: cluster.text("advertise", problems),
        lead: cluster.duration("lead", Millis::secs(1)..=Millis::secs(300), problems),
        forward: cluster.flag("forward", problems),
        max_age: cluster.duration("max_age", Millis::secs(1)..=Millis::secs(3600), problems),
        tls: cluster_tls::read(&mut cluster, problems),
    };
    cluster.finish(problems);
    section
}

/// Checks the table. `None`: there is no table, or it has mistakes, which are noted. `has_tls`: the file has [server.tls], and `tls` is
/// its settings if it has no mistakes.
pub(crate) fn check(
    section: &ClusterSection,
    store: Option<&StoreConfig>,
    has_tls: bool,
    tls: Option<&Tls>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Cluster> {
    let span = section.span.clone()?;
    let between = cluster_tls::check(&section.tls, &span, has_tls, tls, folder, problems);
    let scheme = if has_tls { "https" } else { "http" };
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
            format!("add advertise = \"{scheme}://HOST:7411\", as the other machines reach it"),
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
    let place = text.strip_prefix(&format!("{scheme}://")).filter(|place| !place.contains('/'));
    let port = place.and_then(|place| place.rsplit_once(':')).filter(|(host, _)| !host.is_empty());
    if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        problems.add(
            advertise.span(),
            format!("`advertise` is not the address of a server: {:?}", advertise.get_ref()),
            format!("write it as clients do, as in \"{scheme}://broker-1.example.org:7411\""),
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
        tls: between,
    })
}
