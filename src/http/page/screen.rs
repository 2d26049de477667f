//! The screens by their addresses. An address has all of a screen's state, so that a link shows the same to everyone.

use crate::links::encoded;
use form_urlencoded::{Serializer, parse};

/// Maximum length of a value in an address, in bytes.
const MAX_VALUE: usize = 1_100;

/// A screen, with what it shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Screen {
    /// Whether all is well, and what needs a person.
    Now,
    /// All pools.
    Pools,
    /// One pool, by its name.
    Pool(String),
    /// The list of resources.
    Resources(ResourceFilter),
    /// The life of one resource, by its id or the name of its machine.
    Resource {
        id: String,
        /// The span of time that its lanes show.
        span: LaneSpan,
    },
    /// The list of leases.
    Leases(LeaseFilter),
    /// One lease, by its id.
    Lease(String),
    /// Requests that wait.
    Queue {
        /// Only those that this pool could serve. Empty: all.
        pool: String,
        /// The token of the page.
        after: String,
    },
    /// The audit trail.
    Events(EventFilter),
    /// Resources by failure domain.
    Map {
        /// Only those of this pool. Empty: all.
        pool: String,
        /// The label. Empty: that of the pool.
        by: String,
    },
    /// Machine types that EC2 sold, and their ends.
    SpotStats,
    /// The servers.
    Servers,
}

/// A filter of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResourceFilter {
    pub(crate) pool: String,
    /// A state in lower case, or `trouble` for all that need a look. Empty: all but GONE.
    pub(crate) state: String,
    /// Text in the id, the machine, the address or a label.
    pub(crate) text: String,
    /// The token of the page.
    pub(crate) after: String,
}

/// A filter of leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseFilter {
    pub(crate) pool: String,
    /// A state in lower case. Empty: all that have not ended.
    pub(crate) state: String,
    pub(crate) holder: String,
    pub(crate) work: String,
    pub(crate) after: String,
}

/// A filter of the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventFilter {
    pub(crate) pool: String,
    /// The beginning of a kind.
    pub(crate) kind: String,
    pub(crate) resource: String,
    pub(crate) lease: String,
    pub(crate) after: String,
}

/// The span of time that lanes show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneSpan {
    Quarter,
    Hour,
    SixHours,
    Day,
    /// From the first entry that is shown.
    #[default]
    All,
}

impl LaneSpan {
    pub(crate) const EACH: [Self; 5] = [Self::Quarter, Self::Hour, Self::SixHours, Self::Day, Self::All];

    /// The word in an address, which is also what people read.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Quarter => "15m",
            Self::Hour => "1h",
            Self::SixHours => "6h",
            Self::Day => "1d",
            Self::All => "all",
        }
    }

    /// Its length in seconds.
    pub(crate) fn seconds(self) -> Option<i64> {
        match self {
            Self::Quarter => Some(900),
            Self::Hour => Some(3_600),
            Self::SixHours => Some(21_600),
            Self::Day => Some(86_400),
            Self::All => None,
        }
    }
}

/// The parts of an address behind its `?`.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str) -> Self {
        Self(parse(text.as_bytes()).map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// The trimmed value of a key; empty without one, or with one that is too long.
    fn value(&self, key: &str) -> String {
        let found = self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.trim());
        found.filter(|value| value.len() <= MAX_VALUE).unwrap_or_default().to_owned()
    }
}

impl Screen {
    /// The screen of an address. `None`: there is none.
    pub(crate) fn parse(path: &str, query: &str) -> Option<Self> {
        let query = Query::read(query);
        let mut parts = path.strip_prefix('/')?.split('/');
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        let one = match second {
            Some(text) => Some(decoded(text)?),
            None => None,
        };
        Some(match (first, one) {
            ("", None) => Self::Now,
            ("pools", None) => Self::Pools,
            ("pools", Some(name)) => Self::Pool(name),
            ("resources", None) => Self::Resources(ResourceFilter {
                pool: query.value("pool"),
                state: query.value("state"),
                text: query.value("q"),
                after: query.value("after"),
            }),
            ("resources", Some(id)) => {
                let word = query.value("span");
                let span = LaneSpan::EACH.into_iter().find(|span| span.word() == word).unwrap_or_default();
                Self::Resource { id, span }
            }
            ("leases", None) => Self::Leases(LeaseFilter {
                pool: query.value("pool"),
                state: query.value("state"),
                holder: query.value("holder"),
                work: query.value("work"),
                after: query.value("after"),
            }),
            ("leases", Some(id)) => Self::Lease(id),
            ("queue", None) => Self::Queue { pool: query.value("pool"), after: query.value("after") },
            ("events", None) => Self::Events(EventFilter {
                pool: query.value("pool"),
                kind: query.value("kind"),
                resource: query.value("resource"),
                lease: query.value("lease"),
                after: query.value("after"),
            }),
            ("map", None) => Self::Map { pool: query.value("pool"), by: query.value("by") },
            ("spot-stats", None) => Self::SpotStats,
            ("servers", None) => Self::Servers,
            _ => return None,
        })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Now => "/".into(),
            Self::Pools => "/pools".into(),
            Self::Pool(name) => format!("/pools/{}", encoded(name)),
            Self::Resources(ResourceFilter { pool, state, text, after }) => {
                with("/resources", &[("pool", pool), ("state", state), ("q", text), ("after", after)])
            }
            Self::Resource { id, span } => {
                let word = if *span == LaneSpan::All { "" } else { span.word() };
                with(&format!("/resources/{}", encoded(id)), &[("span", word)])
            }
            Self::Leases(LeaseFilter { pool, state, holder, work, after }) => with(
                "/leases",
                &[("pool", pool), ("state", state), ("holder", holder), ("work", work), ("after", after)],
            ),
            Self::Lease(id) => format!("/leases/{}", encoded(id)),
            Self::Queue { pool, after } => with("/queue", &[("pool", pool), ("after", after)]),
            Self::Events(EventFilter { pool, kind, resource, lease, after }) => with(
                "/events",
                &[("pool", pool), ("kind", kind), ("resource", resource), ("lease", lease), ("after", after)],
            ),
            Self::Map { pool, by } => with("/map", &[("pool", pool), ("by", by)]),
            Self::SpotStats => "/spot-stats".into(),
            Self::Servers => "/servers".into(),
        }
    }

    /// The requests that wait for a pool; all with an empty name.
    pub(crate) fn queue(pool: &str) -> Self {
        Self::Queue { pool: pool.to_owned(), after: String::new() }
    }

    /// All leases of a holder.
    pub(crate) fn holder(name: &str) -> Self {
        Self::Leases(LeaseFilter { holder: name.to_owned(), ..LeaseFilter::default() })
    }

    /// All leases of a work.
    pub(crate) fn work(key: &str) -> Self {
        Self::Leases(LeaseFilter { work: key.to_owned(), ..LeaseFilter::default() })
    }

    /// The screen of the life of a resource.
    pub(crate) fn resource(id: &str) -> Self {
        Self::Resource { id: id.to_owned(), span: LaneSpan::default() }
    }

    /// The screen of whatever this text names: an id, or a part of the name of a machine.
    pub(crate) fn of_text(text: &str) -> Self {
        let text = text.trim();
        if text.starts_with("lse_") {
            Self::Lease(text.to_owned())
        } else if text.starts_with("res_") {
            Self::resource(text)
        } else if text.contains("://") {
            Self::holder(text)
        } else {
            Self::Resources(ResourceFilter { text: text.to_owned(), ..ResourceFilter::default() })
        }
    }
}

/// An address with these parts, without the empty ones.
fn with(path: &str, parts: &[(&str, &str)]) -> String {
    let mut query = Serializer::new(String::new());
    for (key, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(key, value);
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The text of a part of a path. `None`: it is none, or too long.
pub(crate) fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16);
            let byte = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(byte).ok()?);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty() && text.len() <= MAX_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_of_messages_lead_to_their_screens() {
        let links = crate::links::Links::new("https://wharf.example.org/");
        for (link, screen) in [
            (links.lease("lse_01JX"), Screen::Lease("lse_01JX".into())),
            (links.resource("farm/b 3"), Screen::resource("farm/b 3")),
            (links.pool("..?#%"), Screen::Pool("..?#%".into())),
            (links.pool(".."), Screen::Pool("..".into())),
            (links.queue(""), Screen::queue("")),
            (links.queue("a &=?#%+"), Screen::queue("a &=?#%+")),
        ] {
            let link = link.unwrap();
            let path = link.strip_prefix("https://wharf.example.org").unwrap();
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            assert_eq!(Screen::parse(path, query), Some(screen));
        }
    }

    #[test]
    fn an_address_leads_back_to_its_screen() {
        let hostile = "a/b?c#d%e&f=\"<script>\u{202e} ..";
        for screen in [
            Screen::Now,
            Screen::Pools,
            Screen::Pool(hostile.into()),
            Screen::Pool("..".into()),
            Screen::Resources(ResourceFilter::default()),
            Screen::Resources(ResourceFilter {
                pool: "p".into(),
                state: "trouble".into(),
                text: hostile.into(),
                after: "res_1".into(),
            }),
            Screen::resource("farm/b3"),
            Screen::Resource { id: "res_1".into(), span: LaneSpan::Hour },
            Screen::Leases(LeaseFilter { holder: hostile.into(), ..LeaseFilter::default() }),
            Screen::Lease("lse_1".into()),
            Screen::Queue { pool: hostile.into(), after: "lse_1".into() },
            Screen::Events(EventFilter { kind: "lease.".into(), after: "x=".into(), ..EventFilter::default() }),
            Screen::Map { pool: hostile.into(), by: "rack".into() },
            Screen::SpotStats,
            Screen::Servers,
        ] {
            let url = screen.url();
            assert!(url.is_ascii() && !url.contains(['"', '<', '>', ' ', '#']), "{url}");
            let (path, query) = url.split_once('?').unwrap_or((&url, ""));
            assert_eq!(Screen::parse(path, query), Some(screen), "{url}");
        }
    }

    #[test]
    fn an_unknown_address_has_no_screen() {
        for path in ["", "x", "/x", "/pools/", "/pools/a/b", "/pools/%", "/pools/%ff", "/resources/%zz", "//", "/Pools"]
        {
            assert_eq!(Screen::parse(path, ""), None, "{path}");
        }
        assert_eq!(Screen::parse(&format!("/pools/{}", "a".repeat(2000)), ""), None);
        let long = format!("q={}", "a".repeat(2000));
        assert_eq!(Screen::parse("/resources", &long), Some(Screen::Resources(ResourceFilter::default())));
    }

    #[test]
    fn a_text_leads_to_what_it_names() {
        for (text, url) in [
            (" lse_1 ", "/leases/lse_1"),
            ("res_1", "/resources/res_1"),
            ("https://ci/1", "/leases?holder=https%3A%2F%2Fci%2F1"),
            ("b3", "/resources?q=b3"),
        ] {
            assert_eq!(Screen::of_text(text).url(), url);
        }
    }
}
