//! The generated API, package `wharfinger.v1`. Only `rpc`, `client` and `cli` name it.

#![allow(clippy::all, clippy::cast_lossless, missing_docs, unused_qualifications, reason = "generated code")]

tonic::include_proto!("wharfinger.v1");

/// Prints the whole message but the values of credentials: a message must not leak a key through a log or a panic.
impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No field is left out by mistake: this names all of them.
        let Self {
            id,
            revision,
            state: _,
            request_id,
            principal,
            holder,
            selector,
            priority,
            params,
            tags,
            ttl,
            created_at,
            active_at,
            expires_at,
            ended_at,
            wait_until,
            resource_id,
            pool,
            slot,
            fencing_token,
            access,
            ends_at,
            doubt,
            attempts,
            trouble,
            group_id,
            group_index,
            outcome: _,
            note,
            causes,
            replacement_id,
            replaces_id,
            fail_reason: _,
            fail_code,
            fail_detail,
            cleaning,
            child_resource_id,
            independent,
            expected_duration,
            work,
            finding,
            missing_credentials,
        } = self;
        let access: std::collections::BTreeMap<&str, &str> = access
            .iter()
            .map(|(key, value)| (key.as_str(), if key == "private_key" { "(a secret)" } else { value.as_str() }))
            .collect();
        f.debug_struct("Lease")
            .field("id", id)
            .field("revision", revision)
            .field("state", &self.state())
            .field("request_id", request_id)
            .field("principal", principal)
            .field("holder", holder)
            .field("selector", selector)
            .field("priority", priority)
            .field("params", params)
            .field("tags", tags)
            .field("ttl", ttl)
            .field("created_at", created_at)
            .field("active_at", active_at)
            .field("expires_at", expires_at)
            .field("ended_at", ended_at)
            .field("wait_until", wait_until)
            .field("resource_id", resource_id)
            .field("pool", pool)
            .field("slot", slot)
            .field("fencing_token", fencing_token)
            .field("access", &access)
            .field("ends_at", ends_at)
            .field("doubt", doubt)
            .field("attempts", attempts)
            .field("trouble", trouble)
            .field("group_id", group_id)
            .field("group_index", group_index)
            .field("outcome", &self.outcome())
            .field("note", note)
            .field("causes", causes)
            .field("replacement_id", replacement_id)
            .field("replaces_id", replaces_id)
            .field("fail_reason", &self.fail_reason())
            .field("fail_code", fail_code)
            .field("fail_detail", fail_detail)
            .field("cleaning", cleaning)
            .field("child_resource_id", child_resource_id)
            .field("independent", independent)
            .field("expected_duration", expected_duration)
            .field("work", work)
            .field("finding", finding)
            .field("missing_credentials", missing_credentials)
            .finish()
    }
}

/// The descriptors of the API, for reflection.
#[cfg(feature = "server")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wharfinger.v1.binpb"));
