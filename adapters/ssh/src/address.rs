//! Addresses of hosts as people write them.

use std::net::Ipv6Addr;
use wharfinger_adapter::settings::ConfigProblem;

/// Reads the address of a host: a name, or an IPv4 or IPv6 address. The address has no user, port or brackets.
pub(crate) fn bare_address(text: &str) -> Result<String, ConfigProblem> {
    let wrong = |remedy: String| {
        Err(ConfigProblem::new(format!("address = {text:?} is no host name or address"), remedy).at(["address"]))
    };
    if text.contains("://") {
        return wrong("write the name alone, without ssh://, and port and user as settings of their own".into());
    }
    if let Some((user, address)) = text.split_once('@') {
        return wrong(format!("write address = {address:?} and user = {user:?}"));
    }
    let zone_free = text.split_once('%').map_or(text, |(address, _)| address);
    if zone_free.parse::<Ipv6Addr>().is_ok() {
        return Ok(text.to_string());
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return wrong(format!("write address = {inner:?}"));
    }
    if let Some((address, port)) = text.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        return wrong(format!("write address = {address:?} and port = {port}"));
    }
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
        return wrong("write a name as in build1.example.org, or an address as in 192.0.2.7 or 2001:db8::7".into());
    }
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::bare_address;

    #[test]
    fn addresses_are_understood_or_refused_with_what_to_write() {
        for (text, address) in [
            ("build1.example.org", "build1.example.org"),
            ("10.0.0.1", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ] {
            assert_eq!(bare_address(text).as_deref(), Ok(address));
        }
        for (text, remedy) in [
            ("10.0.0.1:2222", "write address = \"10.0.0.1\" and port = 2222"),
            ("[2001:db8::1]:2222", "write address = \"2001:db8::1\" and port = 2222"),
            ("[2001:db8::1]", "write address = \"2001:db8::1\""),
            ("ci@10.0.0.1", "write address = \"10.0.0.1\" and user = \"ci\""),
            ("ssh://10.0.0.1", "without ssh://"),
            ("-oProxyCommand=x", "192.0.2.7"),
            ("a b", "192.0.2.7"),
            ("[10.0.0.1]", "write address = \"10.0.0.1\""),
            ("", "192.0.2.7"),
        ] {
            let refused = bare_address(text).unwrap_err();
            assert!(refused.remedy.contains(remedy), "{text}: {refused}");
        }
    }
}
