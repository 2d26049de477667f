//! Parsers that strangers feed, each as a function of bytes that panics on a fault. `fuzz/` runs them with inputs of its own
//! making, and the tests here with the inputs that it kept.

use crate::auth::{AuthError, BuiltIn, NewToken, Passed, Roles, Trust, UnixPeer};
use crate::config::ConfigError;
use crate::pb;
use crate::rpc::fuzz::{first_bytes, take_call};
use prost::Message;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use tonic::codegen::http::{HeaderMap, HeaderValue};

/// The metadata `authorization` of a call: no bytes but the token itself make a caller.
pub fn bearer(data: &[u8]) {
    static KNOWN: OnceLock<(Trust, String)> = OnceLock::new();
    let (trust, text) = KNOWN.get_or_init(|| {
        let new = NewToken::make("fuzz").unwrap_or_else(|error| panic!("{error}"));
        let roles = Roles::of(&[BuiltIn::Agent]);
        let known = crate::auth::StaticToken {
            id: "fuzz".into(),
            sha256: vec![new.sha256],
            tenant: "web".into(),
            roles,
            expires: None,
        };
        (Trust::tokens([known]).unwrap_or_else(|error| panic!("{error}")), new.text)
    });
    let near = SocketAddr::from(([127, 0, 0, 1], 5));
    // A `*` stands for the token, so that the right form is reached.
    let (before, with) = match data.iter().position(|byte| *byte == b'*') {
        Some(at) => (&data[..at], [&data[..at], text.as_bytes(), &data[at + 1..]].concat()),
        None => (data, data.to_vec()),
    };
    let Ok(value) = HeaderValue::from_bytes(&with) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    let found = trust.identify(Some(near), &headers);
    let right = before.eq_ignore_ascii_case(b"bearer ") && with.len() == before.len() + text.len();
    assert_eq!(found.is_ok(), right, "{found:?}");
    // Twice is none of them.
    headers.append("authorization", HeaderValue::from_static("Bearer x"));
    assert_eq!(trust.identify(Some(near), &headers), Err(AuthError::Malformed));
    let user = crate::auth::Origin { unix: Some(UnixPeer { uid: 1, gid: 1, pid: None }), ..Default::default() };
    assert_eq!(trust.identify(user, &headers), Err(AuthError::Malformed), "a user makes no bad token good");
}

/// The identity of a forwarded call: one identity has one text.
pub fn identity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(passed) = Passed::decode(text) {
        assert_eq!(passed.encode().as_deref(), Some(text));
    }
    // The bytes as those behind the digits, so that the form is reached.
    let digits = crate::auth::hex(data);
    if let Some(passed) = Passed::decode(&digits) {
        assert_eq!(passed.encode(), Some(digits));
    }
}

/// A configuration: it is taken whole, or refused with at least one mistake that can be shown.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match crate::config::parse(Path::new("/nowhere/wharfinger.toml"), text) {
        Ok(loaded) => assert!(loaded.needs_restart(&loaded).is_empty()),
        Err(ConfigError::Invalid(report)) => {
            assert!(!report.problems().is_empty());
            let shown = report.render(false);
            assert!(shown.contains("mistake"), "{shown}");
        }
        Err(error @ ConfigError::Unreadable { .. }) => panic!("{error}"),
    }
}

/// The message of a call: the first byte selects the method.
pub fn calls(data: &[u8]) {
    let Some((method, message)) = data.split_first() else { return };
    macro_rules! each {
        ($($number:literal => $message:ty,)*) => {
            match method % 16 {
                $($number => {
                    let Ok(message) = <$message>::decode(message) else { return };
                    take_call(&message);
                })*
                _ => {}
            }
        };
    }
    each! {
        0 => pb::LeaseRequest,
        1 => pb::ReleaseRequest,
        2 => pb::RenewRequest,
        3 => pb::ReportRequest,
        4 => pb::WatchRequest,
        5 => pb::ListRequest,
        6 => pb::TimelineRequest,
        7 => pb::EventsRequest,
        8 => pb::BreakRequest,
        9 => pb::HoldRequest,
        10 => pb::DrainRequest,
        11 => pb::ListResourcesRequest,
        12 => pb::GetResourceRequest,
    }
}

/// The first bytes of a connection: however they arrive, the verdict is the same.
pub fn preface(data: &[u8]) {
    first_bytes(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfinger_testkit::replay;

    fn run(target: &str, function: fn(&[u8])) {
        replay(Path::new(env!("CARGO_MANIFEST_DIR")), target, function);
    }

    #[test]
    fn no_header_of_a_call_finds_a_fault() {
        run("bearer", bearer);
        run("identity", identity);
    }

    #[test]
    fn no_configuration_finds_a_fault() {
        run("config", config);
    }

    #[test]
    fn no_message_finds_a_fault() {
        run("calls", calls);
    }

    #[test]
    fn no_first_bytes_find_a_fault() {
        run("preface", preface);
    }
}
