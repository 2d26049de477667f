//! Ids of traces and spans, and `traceparent` of W3C Trace Context (https://www.w3.org/TR/trace-context/).

use sha2::{Digest as _, Sha256};
use std::fmt;

/// The name of the span in which a holder works.
pub const HOLD: &str = "lease.hold";
/// The name of the span of the whole lease.
#[cfg(feature = "server")]
pub(super) const LEASE: &str = "lease";

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a `traceparent`. `None`: it is not valid, and means nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = bytes::<1>(version)?[0];
        // A later version may have more parts.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace, span, flags) = (bytes::<16>(trace)?, bytes::<8>(span)?, bytes::<1>(flags)?[0]);
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

/// As version 0 writes it.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.sampled))
    }
}

/// Lower-case hexadecimal digits of exactly this many bytes.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// The trace of a lease whose caller gave none: anyone who has the id of the lease finds it.
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "for spans, which servers make"))]
pub(super) fn trace_of(lease: &str) -> [u8; 16] {
    first(&Sha256::digest(lease.as_bytes()))
}

/// The id of a span of a lease.
pub(super) fn span_of(lease: &str, name: &str) -> [u8; 8] {
    first(&Sha256::digest(format!("wharfinger/{lease}/{name}").as_bytes()))
}

/// The first bytes of a digest, which is longer. Never all zero, as the ids must not be.
fn first<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (byte, from) in out.iter_mut().zip(digest) {
        *byte = *from;
    }
    if out == [0; N] {
        out[N - 1] = 1;
    }
    out
}

/// The place in its caller's trace in which the holder of a lease works: the `TRACEPARENT` of its command.
pub fn hold_of(lease: &str, caller: TraceParent) -> TraceParent {
    TraceParent { span: span_of(lease, HOLD), ..caller }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_strictly() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceParent::parse(text).unwrap();
        assert_eq!((parsed.to_string().as_str(), parsed.sampled), (text, true));
        let later = TraceParent::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02-more").unwrap();
        assert!(!later.sampled);
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-\u{e9}bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn ids_are_of_the_lease_and_of_the_span() {
        let caller = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let hold = hold_of("lse_1", caller);
        assert_eq!((hold.trace, hold.span, hold.sampled), (caller.trace, span_of("lse_1", HOLD), true));
        assert_ne!(span_of("lse_1", HOLD), span_of("lse_2", HOLD));
        assert_ne!(span_of("lse_1", HOLD), span_of("lse_1", LEASE));
        assert_ne!(trace_of("lse_1"), trace_of("lse_2"));
    }
}
