//! What a command is told about its lease: the `WHARFINGER_*` variables.

use crate::cli::text;
use crate::pb;
use std::collections::BTreeMap;
use wharfinger_adapter::access;

/// The variables of every command that runs under a lease. `server`: the address of the API.
pub(crate) fn variables(lease: &pb::Lease, server: &str) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            vars.insert(format!("WHARFINGER_{name}"), value.to_string());
        }
    };
    put("LEASE", &lease.id);
    put("TOKEN", &lease.fencing_token.to_string());
    put("RESOURCE", &lease.resource_id);
    put("POOL", &lease.pool);
    put("SERVER", server);
    put("ENDS_AT", &lease.ends_at.as_ref().and_then(text::rfc3339).unwrap_or_default());
    let known = |key: &str| lease.access.get(key).map(String::as_str).unwrap_or_default();
    put("PATH", known(access::PATH));
    put("COMMIT", known(access::COMMIT));
    vars
}

/// Those, and how to reach the resource: for a command that runs here and works there.
pub(crate) fn variables_with_access(lease: &pb::Lease, server: &str) -> BTreeMap<String, String> {
    let mut vars = variables(lease, server);
    for (key, value) in &lease.access {
        vars.insert(format!("WHARFINGER_{}", key.to_uppercase()), value.clone());
    }
    vars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_knows_its_lease() {
        let access = [("path", "/srv/c"), ("address", "10.0.0.1"), ("host_key", "ssh-ed25519 AAAA")]
            .map(|(k, v)| (k.into(), v.into()));
        let lease = pb::Lease {
            id: "lse_1".into(),
            resource_id: "res_1".into(),
            pool: "work".into(),
            fencing_token: 7,
            access: access.into(),
            ends_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            ..pb::Lease::default()
        };
        let vars = variables(&lease, "http://x:1");
        assert_eq!(
            vars.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
            [
                "WHARFINGER_ENDS_AT=2023-11-14T22:13:20.000Z",
                "WHARFINGER_LEASE=lse_1",
                "WHARFINGER_PATH=/srv/c",
                "WHARFINGER_POOL=work",
                "WHARFINGER_RESOURCE=res_1",
                "WHARFINGER_SERVER=http://x:1",
                "WHARFINGER_TOKEN=7",
            ]
        );
        let vars = variables_with_access(&lease, "http://x:1");
        assert_eq!(vars["WHARFINGER_HOST_KEY"], "ssh-ed25519 AAAA");
        assert_eq!(vars["WHARFINGER_ADDRESS"], "10.0.0.1");
    }
}
