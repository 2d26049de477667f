//! The columns of the tables in SQL, the same for each database. Macros, since statements are static text.

macro_rules! lease_columns {
    () => {
        "id, revision, state, pool, labels, holder, principal, request_id, fingerprint, priority, ttl_ms, wait_until, \
         expected_ms, params, tags, group_id, group_index, independent, child, successor, replaces, created_at, seq, \
         expires_at, attempts, delays, not_before, served_by, avoid, trouble, ends_at, doubt, resource, slot, token, \
         op, since, access, ended_at, ended, work"
    };
}

macro_rules! resource_columns {
    () => {
        "id, revision, state, pool, item, labels, slots, parent_lease, parent_host, cordoned_by, cordon_reason, \
         created_at, ready_at, idle_since, uses, handle, access, ends_at, trouble, op, attempt, retry_at, since, cause, \
         detail, found, at_risk, kept, failures, announced"
    };
}

macro_rules! pool_columns {
    () => {
        "name, revision, cordoned_by, cordon_reason"
    };
}

macro_rules! event_columns {
    () => {
        "revision, ordinal, at, kind, actor, subject, pool, resource, lease, detail"
    };
}

/// What becomes of a lease that is there already.
macro_rules! update_leases {
    () => {
        " ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state, \
         pool = excluded.pool, labels = excluded.labels, holder = excluded.holder, \
         principal = excluded.principal, request_id = excluded.request_id, fingerprint = excluded.fingerprint, \
         priority = excluded.priority, ttl_ms = excluded.ttl_ms, wait_until = excluded.wait_until, \
         expected_ms = excluded.expected_ms, params = excluded.params, tags = excluded.tags, \
         group_id = excluded.group_id, group_index = excluded.group_index, independent = excluded.independent, \
         child = excluded.child, successor = excluded.successor, replaces = excluded.replaces, \
         created_at = excluded.created_at, seq = excluded.seq, expires_at = excluded.expires_at, \
         attempts = excluded.attempts, delays = excluded.delays, not_before = excluded.not_before, \
         served_by = excluded.served_by, avoid = excluded.avoid, trouble = excluded.trouble, \
         ends_at = excluded.ends_at, doubt = excluded.doubt, resource = excluded.resource, slot = excluded.slot, \
         token = excluded.token, op = excluded.op, since = excluded.since, access = excluded.access, \
         ended_at = excluded.ended_at, ended = excluded.ended, work = excluded.work"
    };
}

/// What becomes of a resource that is there already.
macro_rules! update_resources {
    () => {
        " ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state, \
         pool = excluded.pool, item = excluded.item, labels = excluded.labels, slots = excluded.slots, \
         parent_lease = excluded.parent_lease, parent_host = excluded.parent_host, \
         cordoned_by = excluded.cordoned_by, cordon_reason = excluded.cordon_reason, \
         created_at = excluded.created_at, ready_at = excluded.ready_at, idle_since = excluded.idle_since, \
         uses = excluded.uses, handle = excluded.handle, access = excluded.access, ends_at = excluded.ends_at, \
         trouble = excluded.trouble, op = excluded.op, attempt = excluded.attempt, retry_at = excluded.retry_at, \
         since = excluded.since, cause = excluded.cause, detail = excluded.detail, found = excluded.found, \
         at_risk = excluded.at_risk, kept = excluded.kept, failures = excluded.failures, \
         announced = excluded.announced"
    };
}

/// What becomes of a pool that is there already.
macro_rules! update_pools {
    () => {
        " ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, cordoned_by = excluded.cordoned_by, \
         cordon_reason = excluded.cordon_reason"
    };
}
