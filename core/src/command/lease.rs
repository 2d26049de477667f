//! A client requests leases.

use super::quota::subject;
use super::{reject, retry_in};
use crate::Core;
use crate::policy::capacity::Extent;
use crate::state::want::{ClassKey, Want};
use crate::{
    Caller, EventKind, GroupId, Labels, LeaseId, LeaseRequest, LeaseSpec, LeaseState, Millis, Rejection, RejectionKind,
    Reply, Scope, Selector, SessionId, Subject, Texts,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

impl Core {
    pub(crate) fn on_lease(&mut self, request: LeaseRequest) -> Result<Reply, Rejection> {
        let session = match request.session {
            Some(stream) => Some(self.own_stream(stream, &request.caller)?),
            None => None,
        };
        if let Some(session) = &session {
            self.heard_session(session.id);
        }
        let fingerprint = fingerprint(&request);
        if let Some(first) = self.first_of_request(&request.caller.tenant, &request.request_id) {
            let known = self.lease(first).map(|lease| (lease.spec.fingerprint, request.caller.owns(&lease.spec)));
            return match known {
                Some((same, true)) if same == fingerprint => {
                    match &session {
                        Some(session) => self.keep_request(first, session.id),
                        None => self.is_waited_for(first),
                    }
                    Ok(Reply::Leases(self.with_group(first)))
                }
                _ => Err(reject(
                    RejectionKind::Conflict,
                    "REQUEST_ID_CONFLICT",
                    "request_id",
                    format!(
                        "request id {:?} was used for another request: choose a new one for each request, and repeat \
                         it only with the same content",
                        request.request_id
                    ),
                )),
            };
        }
        let wanted = self.validate(&request, session.as_ref().map(|session| session.ttl))?;
        let ids = self.enter(&request, fingerprint, &wanted, session.map(|session| session.id));
        if request.no_queue {
            // A request that is refused leaves no trace: whether it is granted is found before anything is.
            let mut granted = self.would_be_granted(ids[0]);
            if granted {
                let dirty = self.take_dirty();
                self.place(&dirty);
                self.set_dirty(dirty);
                let waits = |id: &LeaseId| self.lease(*id).is_some_and(|row| matches!(row.state, LeaseState::Queued));
                granted = !ids.iter().any(waits);
            }
            if !granted {
                let party = Some(request.caller.tenant.clone());
                let over = self.quota_left(&party).is_some_and(|left| ids.len() as u64 > left);
                self.withdraw(&ids);
                if over {
                    let message = format!(
                        "tenant {} holds as many slots as it may: leave out no_queue to wait in line, or try again",
                        request.caller.tenant
                    );
                    let tenant = subject(&request.caller.tenant);
                    let rejection = reject(RejectionKind::Quota, "TENANT_QUOTA", &tenant, message);
                    return Err(retry_in(rejection, Millis::secs(5)));
                }
                let message = format!(
                    "nothing is free now for {}: leave out no_queue to wait in line, or try again",
                    wanted[0].selector
                );
                let rejection = reject(RejectionKind::Exhausted, "NO_CAPACITY", "", message);
                return Err(retry_in(rejection, Millis::secs(5)));
            }
        }
        Ok(Reply::Leases(ids.iter().filter_map(|id| self.lease(*id).cloned()).collect()))
    }

    /// The leases of a request that is repeated over a session are kept by it, as far as they are not over.
    fn keep_request(&mut self, first: LeaseId, session: SessionId) {
        for lease in self.with_group(first) {
            if !lease.ended() {
                self.keep_lease(lease.id, Some(session));
            }
        }
    }

    /// Checks a request against the pools; returns each wanted lease. `kept`: the TTL of the session that will keep them.
    fn validate(&self, request: &LeaseRequest, kept: Option<Millis>) -> Result<Vec<Wanted>, Rejection> {
        let tenant = self.known_tenant(&request.caller.tenant)?;
        let invalid = |reason, field: &str, message| Err(reject(RejectionKind::Invalid, reason, field, message));
        let total: u32 = request.claims.iter().fold(0, |sum, claim| sum.saturating_add(claim.count));
        if total == 0 {
            return invalid("NOTHING_WANTED", "selector", String::from("the request asks for nothing"));
        }
        if total > self.limits().claims {
            let message = format!("{total} leases at once; at most {}", self.limits().claims);
            return invalid("TOO_MANY_CLAIMS", "count", message);
        }
        if self.queue().len() + total as usize > self.limits().queue {
            let message = format!("{} leases are in line, which is the limit: try again later", self.queue().len());
            let rejection = reject(RejectionKind::Exhausted, "QUEUE_FULL", "", message);
            return Err(retry_in(rejection, Millis::secs(10)));
        }
        self.within_quota(request, total, tenant)?;
        let mut wanted = Vec::new();
        for (index, claim) in request.claims.iter().enumerate() {
            let field = |name: &str| {
                if request.claims.len() == 1 {
                    format!("selector.{name}")
                } else {
                    format!("claims[{index}].selector.{name}")
                }
            };
            self.known(&claim.selector, &request.caller.sees, &field)?;
            let each = self.pools_for(&claim.selector).map(|pool| pool.config.max_ttl);
            // A session has one TTL in all pools.
            let longest = if kept.is_some() { each.min() } else { each.max() }.unwrap_or(Millis::ZERO);
            let usual = self.pools_for(&claim.selector).map(|pool| pool.config.default_ttl).next();
            let ttl = kept.or(request.ttl).or(usual).unwrap_or(Millis::secs(60));
            if ttl <= Millis::ZERO {
                return invalid("TTL_NOT_POSITIVE", "ttl", String::from("ttl must be longer than 0"));
            }
            if ttl > longest {
                let message = format!("ttl {ttl} is longer than {longest}, the longest here: ask for less and renew");
                return invalid("TTL_TOO_LONG", "ttl", message);
            }
            self.attainable(&claim.selector, claim.count, &field)?;
            for _ in 0..claim.count {
                wanted.push(Wanted { selector: claim.selector.clone(), ttl, params: claim.params.clone() });
            }
        }
        if request.claims.len() > 1 {
            self.attainable_together(request, &wanted)?;
        }
        Ok(wanted)
    }

    /// Whether the pool and the labels exist at all.
    fn known(&self, selector: &Selector, scope: &Scope, field: &dyn Fn(&str) -> String) -> Result<(), Rejection> {
        if let Some(pool) = &selector.pool
            && (self.pool_entry(pool).is_none() || !scope.shows_pool(pool))
        {
            let shown = self.pool_order().iter().filter(|name| scope.shows_pool(name));
            let names: Vec<&str> = shown.map(|name| &**name).collect();
            let message = format!("no pool {pool:?}; there are: {}", listed(&names));
            return Err(reject(RejectionKind::NotFound, "UNKNOWN_POOL", &field("pool"), message));
        }
        for (key, value) in &selector.labels {
            let shown = |pool: &str| scope.shows_pool(pool) && selector.among.has(pool);
            let values = self.values_of(key, &shown);
            if values.is_empty() {
                let message =
                    format!("no pool or resource has a label {key:?}; there are: {}", listed(&self.label_keys(&shown)));
                return Err(reject(
                    RejectionKind::NotFound,
                    "UNKNOWN_LABEL",
                    &field(&format!("labels[{key}]")),
                    message,
                ));
            }
            if !values.iter().any(|known| *known == &**value) {
                let message = format!("no pool or resource has {key}={value}; values there are: {}", listed(&values));
                return Err(reject(
                    RejectionKind::NotFound,
                    "UNKNOWN_LABEL",
                    &field(&format!("labels[{key}]")),
                    message,
                ));
            }
        }
        Ok(())
    }

    /// The labels of pools that exist for the caller, and of what is in them.
    fn all_labels<'c>(&'c self, shown: &'c dyn Fn(&str) -> bool) -> impl Iterator<Item = &'c Labels> {
        let entries = || self.pool_entries().filter(|pool| shown(&pool.config.name));
        let pools = entries().map(|pool| &pool.config.labels);
        let items = entries().filter_map(|p| p.config.inventory.as_ref()).flatten().map(|item| &item.labels);
        let members = entries().flat_map(|pool| &pool.members).filter_map(|id| self.resource(*id));
        pools.chain(items).chain(members.map(|row| &row.labels))
    }

    fn values_of<'c>(&'c self, key: &str, shown: &'c dyn Fn(&str) -> bool) -> Vec<&'c str> {
        let mut values: Vec<&str> = self.all_labels(shown).filter_map(|labels| labels.get(key).map(|v| &**v)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn label_keys<'c>(&'c self, shown: &'c dyn Fn(&str) -> bool) -> Vec<&'c str> {
        let mut keys: Vec<&str> = self.all_labels(shown).flat_map(|labels| labels.keys().map(|key| &**key)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether the configuration could ever meet it, be it busy or switched off now.
    fn attainable(&self, selector: &Selector, count: u32, field: &dyn Fn(&str) -> String) -> Result<(), Rejection> {
        let most = self.most_slots(&Want::Selector(Arc::new(selector.clone())));
        if most == 0 {
            let message = format!("no pool has anything with {selector} at once: each label exists, but not together");
            return Err(reject(RejectionKind::Precondition, "UNSATISFIABLE", &field("labels"), message));
        }
        if u64::from(count) > most {
            let message = format!("{count} wanted, but {selector} can never have more than {most} slots");
            return Err(reject(RejectionKind::Precondition, "UNSATISFIABLE", "count", message));
        }
        Ok(())
    }

    /// Whether the configuration could ever meet all claims of a request at the same time.
    fn attainable_together(&self, request: &LeaseRequest, wanted: &[Wanted]) -> Result<(), Rejection> {
        let wants: Vec<Want> = wanted.iter().map(|want| Want::Selector(want.selector.clone())).collect();
        let unmet = self.unmet(&wants, Extent::Configured);
        let Some(first) = unmet.first() else { return Ok(()) };
        let want = &wants[*first];
        // The claim to which the lease of this number belongs.
        let mut before = 0;
        let index = request.claims.iter().position(|claim| {
            before += claim.count as usize;
            *first < before
        });
        let field = format!("claims[{}].count", index.unwrap_or(0));
        let same = wants.iter().filter(|other| *other == want).count() as u64;
        let most = self.most_slots(want);
        let message = if same > most {
            format!(
                "the claims want {same} slots for {want} together, and it can never have more than {most}: ask for at \
                 most {most}, or raise what its pools may have"
            )
        } else {
            format!(
                "the claims compete for the same pools: with slots for the others, {} of the {same} for {want} can \
                 never be had (it has at most {most} by itself): ask for fewer, or raise what its pools may have",
                unmet.iter().filter(|n| wants[**n] == *want).count()
            )
        };
        Err(reject(RejectionKind::Precondition, "UNSATISFIABLE", &field, message))
    }

    /// Puts the leases of a request into the queue.
    fn enter(
        &mut self,
        request: &LeaseRequest,
        fingerprint: u64,
        wanted: &[Wanted],
        session: Option<SessionId>,
    ) -> Vec<LeaseId> {
        let group = (wanted.len() > 1).then(|| GroupId::new(self.mint()));
        let seq = self.next_number();
        let mut ids = Vec::new();
        let mut avoid = request.avoid.clone();
        avoid.extend(request.avoid.iter().map(|id| self.host_or_itself(*id)));
        avoid.sort_unstable();
        avoid.dedup();
        avoid.truncate(crate::Lease::MAX_AVOID);
        let Caller { tenant, principal, .. } = &request.caller;
        let (tenant, principal) = (self.intern().name(tenant), self.intern().name(principal));
        let tags = self.intern().texts(&request.tags);
        let total = self.tenants().of(&tenant).and_then(|tenant| tenant.total);
        for (index, want) in wanted.iter().enumerate() {
            let spec = LeaseSpec {
                request_id: request.request_id.clone(),
                fingerprint,
                tenant: tenant.clone(),
                principal: principal.clone(),
                holder: request.holder.clone(),
                selector: self.intern().selector(&want.selector),
                priority: request.priority,
                ttl: want.ttl,
                wait_until: request.queue_for.map(|span| self.now().after(span)),
                expected: request.expected,
                params: self.intern().texts(&want.params),
                tags: tags.clone(),
                group,
                index: index as u32,
                independent: request.independent,
                child: None,
                replace: request.replace,
                replaces: None,
                work: request.work.clone(),
                total: [request.total, total].into_iter().flatten().min(),
            };
            // Members keep their own place if they come back one by one.
            let id = self.add_lease(spec, seq + index as u64, (avoid.clone(), session));
            self.event(EventKind::LeaseQueued, &request.caller.principal, Subject::Lease(id), "");
            self.mark_dirty_for(id);
            ids.push(id);
        }
        let key: ClassKey = wanted.iter().map(|want| Want::Selector(want.selector.clone())).collect();
        self.enqueue(key, (Reverse(request.priority), seq), ids.clone());
        ids
    }
}

struct Wanted {
    selector: Arc<Selector>,
    ttl: Millis,
    params: Arc<Texts>,
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        return String::from("none");
    }
    let mut text = names.iter().take(20).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 20 {
        text.push_str(", …");
    }
    text
}

/// FNV-1a over the whole request: the same content gives the same number in every version.
fn fingerprint(request: &LeaseRequest) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.text(&request.holder);
    for claim in &request.claims {
        hash.text(claim.selector.pool.as_deref().unwrap_or(""));
        hash.texts(&claim.selector.labels);
        hash.number(i64::from(claim.count));
        hash.texts(&claim.params);
    }
    hash.number(i64::from(request.priority));
    hash.number(request.ttl.map_or(-1, |span| span.0));
    hash.number(request.queue_for.map_or(-1, |span| span.0));
    hash.number(i64::from(request.no_queue));
    hash.number(request.expected.map_or(-1, |span| span.0));
    hash.texts(&request.tags);
    hash.number(i64::from(request.independent));
    hash.number(i64::from(request.replace));
    // Later fields are hashed only where they are set, so that older requests keep their number.
    if let Some(work) = &request.work {
        hash.text(work);
    }
    hash.0
}

struct Fnv(u64);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as i64);
        self.bytes(text.as_bytes());
    }

    fn texts(&mut self, texts: &Texts) {
        self.number(texts.len() as i64);
        for (key, value) in texts {
            self.text(key);
            self.text(value);
        }
    }

    fn number(&mut self, number: i64) {
        self.bytes(&number.to_le_bytes());
    }
}
