//! The selection of leases on the command line: shared by `lease`, `run` and `exec`.

use super::ci::{Claim, Job};
use crate::duration;
use crate::pb;
use clap::Args;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use wharfinger_types::{LeaseId, ResourceId};

/// Of what, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Wanted {
    /// Pool to lease from
    #[arg(long, short, value_name = "POOL", help_heading = "What to lease")]
    pub(crate) pool: Option<String>,
    /// Label that must match, as in os=linux; may be repeated
    #[arg(long = "label", short, value_name = "KEY=VALUE", value_parser = pair, required_unless_present = "pool", help_heading = "What to lease")]
    labels: Vec<(String, String)>,
    /// Working copies: check out the tip of this branch
    #[arg(long, value_name = "NAME", group = "checkout", help_heading = "What to lease")]
    branch: Option<String>,
    /// Working copies: check out this tag
    #[arg(long, value_name = "NAME", group = "checkout", help_heading = "What to lease")]
    tag: Option<String>,
    /// Working copies: check out this commit
    #[arg(long, value_name = "SHA", group = "checkout", help_heading = "What to lease")]
    commit: Option<String>,
    /// Working copies: check out this ref, as in refs/pull/7/head
    #[arg(long = "ref", value_name = "REF", group = "checkout", help_heading = "What to lease")]
    reference: Option<String>,
    /// Parameter for the pool's adapter; may be repeated
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = pair, help_heading = "What to lease")]
    params: Vec<(String, String)>,
    /// Lease ends so long after the last sign of life of its holder; the pool's default if absent
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "How")]
    ttl: Option<Duration>,
    /// Give up waiting in line after this time; without it, wait for ever
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "How")]
    queue_for: Option<Duration>,
    /// Fail if nothing is free at once
    #[arg(long, conflicts_with = "queue_for", help_heading = "How")]
    no_queue: bool,
    /// Higher goes first; -100 to 100
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-100..=100), help_heading = "How")]
    priority: i32,
    /// Name of the holder, for people: a build's URL, an agent's name
    #[arg(long, value_name = "TEXT", env = "WHARFINGER_HOLDER", help_heading = "How")]
    holder: Option<String>,
    /// Unique for this request: the same again asks for the same lease
    #[arg(long, value_name = "ID", help_heading = "How")]
    request_id: Option<String>,
    /// How long the work is likely to take: no host is given that ends before
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "How")]
    expected: Option<Duration>,
    /// Name of the work, the same each time it is tried (a job and its commit): failures of the same work are compared to
    /// tell whose fault they are
    #[arg(long, value_name = "KEY", help_heading = "How")]
    work: Option<String>,
    /// Note on the lease, for people: build number, ticket; may be repeated
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = pair, help_heading = "How")]
    tags: Vec<(String, String)>,
}

impl Wanted {
    /// The request, with a request id of its own.
    pub(crate) fn request(&self) -> pb::LeaseRequest {
        let mut params: HashMap<String, String> = self.params.iter().cloned().collect();
        for (key, value) in
            [("branch", &self.branch), ("tag", &self.tag), ("commit", &self.commit), ("ref", &self.reference)]
        {
            if let Some(value) = value {
                params.insert(key.into(), value.clone());
            }
        }
        pb::LeaseRequest {
            request_id: self.request_id.clone().unwrap_or_else(request_id),
            holder: self.holder.clone().unwrap_or_else(holder),
            selector: Some(pb::Selector {
                pool: self.pool.clone().unwrap_or_default(),
                labels: self.labels.iter().cloned().collect(),
            }),
            params,
            priority: self.priority,
            ttl: self.ttl.and_then(wire),
            queue_for: self.queue_for.and_then(wire),
            no_queue: self.no_queue,
            expected_duration: self.expected.and_then(wire),
            tags: self.tags.iter().cloned().collect(),
            work: self.work.clone().unwrap_or_default(),
            ..pb::LeaseRequest::default()
        }
    }
}

impl Wanted {
    /// Fills in what the job of a CI product says, where the command line says nothing. Returns the claim on the request id.
    pub(crate) fn fill(&self, request: &mut pb::LeaseRequest, job: &Job, command: &[String]) -> Option<Claim> {
        job.fill(request);
        if self.holder.is_none() && !job.holder.is_empty() {
            request.holder.clone_from(&job.holder);
        }
        if self.request_id.is_some() {
            return None;
        }
        let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        let mut parts = command.to_vec();
        parts.extend(self.pool.clone());
        parts.extend(pairs(&self.labels));
        let mut params: Vec<_> = request.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
        params.sort_unstable();
        parts.extend(params);
        let claim = Claim::take(job.request_id_for(&parts));
        request.request_id = claim.id();
        Some(claim)
    }
}

/// A length of time for the wire.
pub(crate) fn wire(span: Duration) -> Option<prost_types::Duration> {
    span.try_into().ok()
}

/// Parses `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// A lease or a resource: their ids tell which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Lease(String),
    Resource(String),
}

/// `lse_…` or `res_…`.
pub(crate) fn named(text: &str) -> Result<Named, String> {
    if text.starts_with(LeaseId::PREFIX) {
        Ok(Named::Lease(text.into()))
    } else if text.starts_with(ResourceId::PREFIX) {
        Ok(Named::Resource(text.into()))
    } else {
        Err(format!(
            "the id of a lease starts with {}, that of a resource with {}",
            LeaseId::PREFIX,
            ResourceId::PREFIX
        ))
    }
}

/// A resource by its id, or a machine by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    Resource(String),
    Machine(String),
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Placed::Resource(name) | Placed::Machine(name)) = self;
        f.write_str(name)
    }
}

impl Placed {
    /// The fields of a request: the resource, the machine.
    pub(crate) fn parts(self) -> (String, String) {
        match self {
            Placed::Resource(id) => (id, String::new()),
            Placed::Machine(name) => (String::new(), name),
        }
    }
}

/// `res_…`, `POOL/ITEM` or `ITEM`.
pub(crate) fn placed(text: &str) -> Result<Placed, String> {
    if text.starts_with(ResourceId::PREFIX) {
        return Ok(Placed::Resource(text.into()));
    }
    if text.starts_with(LeaseId::PREFIX) {
        return Err("that is a lease: name its resource or its machine; wharfinger get shows both".into());
    }
    Ok(Placed::Machine(text.into()))
}

/// `90s`, `5m`, `1h30m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let span = duration::parse(text)?;
    Ok(Duration::from_millis(u64::try_from(span).unwrap_or(0)))
}

/// A request id that no other request has.
fn request_id() -> String {
    format!("cli-{}", crate::random::request_id())
}

/// The default name of the holder: `user@machine`.
fn holder() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| user());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_string())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty());
    machine.map_or_else(|| user.clone(), |machine| format!("{user}@{machine}"))
}

/// Our user by the kernel's word: services and containers often have no USER.
fn user() -> String {
    let id = rustix::process::getuid().as_raw().to_string();
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_string())
    });
    found.unwrap_or_else(|| format!("user {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_what_it_is_of() {
        assert_eq!(named("lse_1"), Ok(Named::Lease("lse_1".into())));
        assert_eq!(named("res_1"), Ok(Named::Resource("res_1".into())));
        assert!(named("grp_1").is_err_and(|why| why.contains("starts with lse_")));
    }

    #[test]
    fn a_place_is_a_resource_or_a_machine() {
        assert_eq!(placed("res_1").map(Placed::parts), Ok(("res_1".into(), String::new())));
        assert_eq!(placed("linux/b-1").map(Placed::parts), Ok((String::new(), "linux/b-1".into())));
        assert!(placed("lse_1").is_err());
    }

    #[test]
    fn pairs_have_a_key() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
