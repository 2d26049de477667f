//! Refusals as lines of JSON in the log, or in the file of `[audit]`. A refusal changes nothing, so that it is no entry of the audit trail: a write to the
//! database would be a lever for strangers.
//!
//! The first refusal of a kind from a place is a line. Equal ones are counted, and a line tells their number each ten seconds.

use crate::auth::{Identity, Origin};
use crate::telemetry::{AUDIT, AuditNews, audit_file};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Maximum number of lines in a second.
const LINES: u32 = 100;
/// Time in which equal refusals are counted.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// Maximum number of refusals whose equals are counted one by one. The rest is counted by reason.
const KINDS: usize = 1_024;
/// Maximum length of a text of a client in a line, in characters.
const LONGEST: usize = 256;

/// The refusals of a server. Cheap to clone; the clones share their counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<Counted>>);

/// One refusal.
#[derive(Debug, Default)]
pub(crate) struct Refusal<'r> {
    /// The stable reason.
    pub(crate) reason: &'r str,
    /// The method that was called. Empty: the connection itself is refused.
    pub(crate) method: &'r str,
    /// The words of the refusal.
    pub(crate) detail: &'r str,
    /// The caller, if it is known.
    pub(crate) identity: Option<&'r Identity>,
    /// The connection.
    pub(crate) origin: Option<&'r Origin>,
}

/// Refusals that count as equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    reason: String,
    method: String,
    /// The caller, or the network of a caller that is not known.
    from: String,
}

/// The counters, without a clock.
#[derive(Debug, Default)]
struct Counted {
    /// Start of the second, and the lines in it.
    second: Option<(Instant, u32)>,
    /// Start of the window.
    window: Option<Instant>,
    /// Refusals in this window beyond the first of each kind.
    again: BTreeMap<Kind, u64>,
    /// Refusals without a line, by reason.
    dropped: BTreeMap<String, u64>,
}

/// The counters of a window.
#[derive(Debug, Default)]
struct Totals {
    again: BTreeMap<Kind, u64>,
    dropped: BTreeMap<String, u64>,
}

impl Counted {
    /// Counts one. Whether it is a line.
    fn count(&mut self, kind: Kind, now: Instant) -> bool {
        self.window.get_or_insert(now);
        if let Some(again) = self.again.get_mut(&kind) {
            *again += 1;
            return false;
        }
        let fresh = self.second.is_none_or(|(start, _)| now.duration_since(start) >= Duration::from_secs(1));
        let (start, lines) = if fresh { (now, 0) } else { self.second.unwrap_or((now, 0)) };
        if lines >= LINES || self.again.len() >= KINDS {
            *self.dropped.entry(kind.reason).or_default() += 1;
            return false;
        }
        self.second = Some((start, lines + 1));
        self.again.insert(kind, 0);
        true
    }

    /// The counters of a window that is over, and of the refusals without a line.
    fn take(&mut self, now: Instant) -> Totals {
        if self.window.is_none_or(|start| now.duration_since(start) < WINDOW) {
            return Totals::default();
        }
        self.window = None;
        let mut again = std::mem::take(&mut self.again);
        again.retain(|_, count| *count > 0);
        Totals { again, dropped: std::mem::take(&mut self.dropped) }
    }
}

impl Refusals {
    /// Notes a refusal.
    pub(crate) fn note(&self, refusal: &Refusal<'_>) {
        self.flush();
        let now = Instant::now();
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).count(refusal.kind(), now) {
            return;
        }
        let who = refusal.identity;
        let peer = who.and_then(|who| who.peer.clone()).or_else(|| refusal.origin.and_then(Origin::shown));
        tracing::warn!(
            target: AUDIT,
            reason = refusal.reason,
            method = short(refusal.method),
            detail = short(refusal.detail),
            peer = peer.as_deref().map(short),
            via = who.and_then(|who| who.via.as_deref()),
            tenant = who.map(|who| &*who.tenant),
            principal = who.map(|who| short(&who.principal)),
            proof = who.map(|who| who.proof.text()).or_else(|| refusal.origin.and_then(Origin::proof)),
            "{}", if refusal.method.is_empty() { "a connection is refused" } else { "a call is refused" }
        );
    }

    /// Notes the refusal in the answer to a call, if it is one.
    pub(crate) fn note_answer(&self, headers: &HeaderMap, method: &str, identity: Option<&Identity>, origin: &Origin) {
        // Most answers have no status here: theirs comes behind the message.
        let Some(status) = Status::from_header_map(headers) else { return };
        if !matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted) {
            return;
        }
        let info = status.get_details_error_info();
        let reason = info.as_ref().map_or("UNKNOWN", |info| info.reason.as_str());
        // Other limits are of callers that are known, and no refusals of a right.
        if status.code() == Code::ResourceExhausted && reason != "ADDRESS_FAILURES" {
            return;
        }
        self.note(&Refusal { reason, method, detail: status.message(), identity, origin: Some(origin) });
    }

    /// Writes the counters of a window that is over.
    pub(crate) fn flush(&self) {
        match audit_file::news() {
            Some(AuditNews::Full(file)) => tracing::error!(
                file = %file.display(),
                "the file of refusals is full: they are counted alone until it is rotated and SIGHUP opens it again"
            ),
            Some(AuditNews::Failed(file, error)) => {
                tracing::error!(file = %file.display(), error, "the file of refusals cannot be written; they go to the log");
            }
            None => {}
        }
        let Totals { again, dropped } = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        for (Kind { reason, method, from }, count) in again {
            tracing::warn!(target: AUDIT, reason, method, from, count, "refused again");
        }
        for (reason, count) in dropped {
            tracing::warn!(target: AUDIT, reason, count, "refused without a line");
        }
    }
}

impl Refusal<'_> {
    fn kind(&self) -> Kind {
        let from = match (self.identity, self.origin) {
            (Some(who), _) => format!("{} of {}", who.principal, who.tenant),
            (None, Some(Origin { address: Some(address), .. })) => network(address.ip()),
            (None, Some(origin)) => origin.proof().unwrap_or_default(),
            (None, None) => String::new(),
        };
        Kind { reason: self.reason.to_owned(), method: short(self.method).to_owned(), from: short(&from).to_owned() }
    }
}

/// The network of an address: of one customer of a provider, as a rule.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits() & (u128::MAX << 72);
            format!("{}/56", Ipv6Addr::from_bits(bits))
        }
    }
}

/// The beginning of a text.
fn short(text: &str) -> &str {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(reason: &str, from: usize) -> Kind {
        Kind { reason: reason.into(), method: "Lease".into(), from: from.to_string() }
    }

    #[tokio::test(start_paused = true)]
    async fn each_refusal_is_a_line_or_is_counted_and_a_flood_is_a_hundred_lines_a_second() {
        let mut counted = Counted::default();
        let (mut lines, mut told) = (0_u64, 0_u64);
        let mut most = 0;
        for _second in 0..25 {
            let mut now_lines = 0;
            for n in 0..4_000 {
                // Two thirds of them are of one kind.
                let kind = if n % 3 == 0 { kind("NOT_ALLOWED", n) } else { kind("TOKEN_UNKNOWN", 0) };
                now_lines += u64::from(counted.count(kind, Instant::now()));
            }
            most = most.max(now_lines);
            lines += now_lines;
            tokio::time::advance(Duration::from_secs(1)).await;
            let Totals { again, dropped } = counted.take(Instant::now());
            told += again.values().chain(dropped.values()).sum::<u64>();
            assert!(again.len() + dropped.len() <= KINDS + 2);
        }
        tokio::time::advance(WINDOW).await;
        let Totals { again, dropped } = counted.take(Instant::now());
        told += again.values().chain(dropped.values()).sum::<u64>();
        assert_eq!(lines + told, 100_000, "none is lost");
        assert!(most <= u64::from(LINES) && lines > 500, "{most} in a second, {lines} in all");
        assert_eq!(counted.take(Instant::now()).again.len(), 0);
    }

    #[test]
    fn strangers_count_by_their_network_and_callers_by_their_name() {
        for (address, wanted) in [
            ("10.1.2.3", "10.1.2.0/24"),
            ("::ffff:10.1.2.3", "10.1.2.0/24"),
            ("2001:db8:1:2ff:3::4", "2001:db8:1:200::/56"),
        ] {
            assert_eq!(network(address.parse().unwrap()), wanted);
        }
        let long = "ä".repeat(1_000);
        assert_eq!(short(&long).chars().count(), LONGEST);
        let origin = Origin::from(Some("10.1.2.3:5".parse().unwrap()));
        let refusal = Refusal { reason: "X", method: &long, origin: Some(&origin), ..Refusal::default() };
        assert_eq!(refusal.kind().from, "10.1.2.0/24");
        assert_eq!(refusal.kind().method.chars().count(), LONGEST);
    }
}
