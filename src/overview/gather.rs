//! The questions behind *Now* and the queue.

use super::source::{Refused, Source};
use super::{instant, seconds};
use crate::pb;
use pb::{LeaseState, ResourceState as State};

/// Maximum number of rows of a list.
pub(crate) const ROWS: i32 = 100;
/// Maximum number of resources in trouble on *Now*.
const TROUBLE: i32 = 20;
/// Maximum number of leases that are looked up one by one for one screen.
pub(crate) const LOOKED_UP: usize = 12;
/// Maximum number of requests of the queue that are explained.
const EXPLAINED: usize = 25;
/// Entries of the trail among which *Now* looks for broken leases.
const LATEST: i32 = 300;
const HOUR: i64 = 3_600;

/// States that need a look.
pub(crate) const LOOK: [State; 5] =
    [State::Suspect, State::Repairing, State::Quarantined, State::Draining, State::Orphaned];

/// A lease on a resource in trouble.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hit {
    /// The resource in trouble.
    pub(crate) resource: String,
    pub(crate) lease: String,
    pub(crate) holder: String,
}

/// Resources, and whether there are more.
pub(crate) type Resources = (Vec<pb::Resource>, bool);

/// The facts of *Now*. A part that the caller's roles do not let it read is `None`.
pub(crate) struct Now {
    /// The server that answers.
    pub(crate) server: Option<Box<pb::GetServerResponse>>,
    pub(crate) pools: Option<Vec<pb::Pool>>,
    /// Problems of the server's clock.
    pub(crate) warnings: Vec<String>,
    /// Resources that need a look.
    pub(crate) trouble: Option<Resources>,
    /// The leases on them, as far as they were looked up.
    pub(crate) hits: Vec<Hit>,
    /// Requests that the configuration can never meet.
    pub(crate) unmet: Vec<pb::ExplainResponse>,
    /// Leases that broke within the last hour, and their number.
    pub(crate) broken: Option<(Vec<pb::Lease>, usize)>,
}

/// Requests that wait.
pub(crate) struct Queue {
    pub(crate) pool: String,
    /// A page of them. `None`: the roles of the caller do not allow it.
    pub(crate) page: Option<pb::ListQueueResponse>,
    /// Why the first request of each class waits; of the first classes alone.
    pub(crate) said: Vec<pb::ExplainResponse>,
}

impl Queue {
    /// The requests of each class, with why the first of them waits.
    pub(crate) fn classes(&self) -> Vec<QueueClass<'_>> {
        let Some(page) = &self.page else { return Vec::new() };
        let of = |(n, class)| {
            let own = |request: &&pb::QueuedRequest| usize::try_from(request.class_index) == Ok(n);
            let requests: Vec<&pb::QueuedRequest> = page.requests.iter().filter(own).collect();
            let first = requests.first().and_then(|request| request.lease.as_ref()).map(|lease| &lease.id);
            let said = self.said.iter().find(|said| said.lease.as_ref().map(|lease| &lease.id) == first);
            QueueClass { class, requests, said }
        };
        page.classes.iter().enumerate().map(of).collect()
    }
}

/// A class of the queue.
pub(crate) struct QueueClass<'q> {
    pub(crate) class: &'q pb::QueueClass,
    /// Those of the page, in the order of service.
    pub(crate) requests: Vec<&'q pb::QueuedRequest>,
    /// Why the first of them waits.
    pub(crate) said: Option<&'q pb::ExplainResponse>,
}

/// The answer, or `None` where the roles of the caller do not allow the question.
pub(crate) fn allowed<S: Source, T>(answer: Result<T, S::Error>) -> Result<Option<T>, S::Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if S::refused(&error) == Refused::NotAllowed => Ok(None),
        Err(error) => Err(error),
    }
}

/// The answer, or `None` where the caller may not ask or there is nothing by that name.
pub(crate) fn found<S: Source, T>(answer: Result<T, S::Error>) -> Result<Option<T>, S::Error> {
    match answer {
        Err(error) if S::refused(&error) == Refused::NotFound => Ok(None),
        answer => allowed::<S, T>(answer),
    }
}

/// The facts of *Now*.
///
/// # Errors
/// The error of a question that failed for another reason than the caller's roles.
pub(crate) async fn now<S: Source>(source: &S) -> Result<Now, S::Error> {
    let server = allowed::<S, _>(source.server().await)?.map(Box::new);
    let answer = allowed::<S, _>(source.list_pools().await)?;
    let (pools, warnings) = answer.map_or((None, Vec::new()), |answer| (Some(answer.pools), answer.warnings));
    // A walk over all resources is for farms where some need a look.
    let any = |pool: &pb::Pool| pool.resources.iter().any(|count| LOOK.contains(&count.state()) && count.count > 0);
    let troubled: Vec<String> = pools.iter().flatten().filter(|pool| any(pool)).map(|pool| pool.name.clone()).collect();
    let trouble = match troubled.is_empty() && pools.is_some() {
        true => Some((Vec::new(), false)),
        false => trouble(source, troubled, TROUBLE).await?,
    };
    let hits = hits(source, trouble.iter().flat_map(|(list, _)| list)).await?;
    let waiting = waiting(source, "", ROWS).await?;
    let said = explained(source, &waiting.leases, EXPLAINED).await?;
    let unmet = said.into_iter().filter(|said| !said.satisfiable && said.position > 0).collect();
    let broken = broken(source).await?;
    Ok(Now { server, pools, warnings, trouble, hits, unmet, broken })
}

/// Resources that need a look. `None`: the caller may not list resources.
pub(crate) async fn trouble<S: Source>(
    source: &S,
    pools: Vec<String>,
    rows: i32,
) -> Result<Option<Resources>, S::Error> {
    let states = LOOK.map(i32::from).to_vec();
    let request = pb::ListResourcesRequest { pools, states, page_size: rows, ..pb::ListResourcesRequest::default() };
    let answer = allowed::<S, _>(source.list_resources(request).await)?;
    Ok(answer.map(|answer| (answer.resources, !answer.next_page_token.is_empty())))
}

/// The holders of leases on resources, and on the copies that lie on them.
async fn hits<S: Source>(
    source: &S,
    resources: impl Iterator<Item = &pb::Resource> + Send,
) -> Result<Vec<Hit>, S::Error> {
    let mut hits = Vec::new();
    let mut left = LOOKED_UP;
    for one in resources {
        let mut ids: Vec<String> = one.lease_ids.clone();
        while let Some(id) = ids.pop() {
            if left == 0 {
                return Ok(hits);
            }
            left -= 1;
            let Some(lease) = lease(source, &id).await? else { continue };
            if lease.child_resource_id.is_empty() {
                hits.push(Hit { resource: one.id.clone(), lease: lease.id, holder: lease.holder });
                continue;
            }
            let copy = found::<S, _>(resource(source, &lease.child_resource_id).await)?;
            ids.extend(copy.map(|copy| copy.lease_ids).unwrap_or_default());
        }
    }
    Ok(hits)
}

/// A resource, by its id or the name of its machine.
///
/// # Errors
/// The error of the question, also where there is none by that name.
pub(crate) async fn resource<S: Source>(source: &S, id: &str) -> Result<pb::Resource, S::Error> {
    let (resource_id, machine) = match id.starts_with("res_") {
        true => (id.to_owned(), String::new()),
        false => (String::new(), id.to_owned()),
    };
    let request = pb::GetResourceRequest { resource_id, machine, ..pb::GetResourceRequest::default() };
    Ok(source.get_resource(request).await?.resource.unwrap_or_default())
}

/// One lease, without credentials. `None`: there is none in the caller's view.
pub(crate) async fn lease<S: Source>(source: &S, id: &str) -> Result<Option<pb::Lease>, S::Error> {
    Ok(found::<S, _>(source.explain(id).await)?.and_then(|said| said.lease))
}

/// The explanations of the first of these leases, at most `limit`.
pub(crate) async fn explained<S: Source>(
    source: &S,
    leases: &[pb::Lease],
    limit: usize,
) -> Result<Vec<pb::ExplainResponse>, S::Error> {
    let mut all = Vec::new();
    for lease in leases.iter().take(limit) {
        all.extend(found::<S, _>(source.explain(&lease.id).await)?);
    }
    Ok(all)
}

/// The leases that broke within the last hour, the latest ones, and their number.
async fn broken<S: Source>(source: &S) -> Result<Option<(Vec<pb::Lease>, usize)>, S::Error> {
    let request = pb::EventsRequest { newest_first: true, page_size: LATEST, ..pb::EventsRequest::default() };
    let Some(answer) = allowed::<S, _>(source.events(request).await)? else { return Ok(None) };
    let since = seconds() - HOUR;
    let recent = |event: &&pb::Event| {
        event.kind == "lease.broken" && instant(event.at.as_ref()).is_some_and(|at| at.as_second() >= since)
    };
    let ids: Vec<&str> = answer.events.iter().filter(recent).map(|event| &*event.lease_id).collect();
    let mut leases = Vec::new();
    for id in ids.iter().take(LOOKED_UP) {
        leases.extend(lease(source, id).await?);
    }
    // The lease that holds a copy on its host breaks with it, and is no one's work.
    let all = leases.len();
    leases.retain(|lease: &pb::Lease| lease.child_resource_id.is_empty());
    let count = ids.len() - (all - leases.len());
    Ok(Some((leases, count)))
}

/// The oldest requests that wait. Empty where the caller may not list leases.
pub(crate) async fn waiting<S: Source>(source: &S, pool: &str, rows: i32) -> Result<pb::ListResponse, S::Error> {
    let request = pb::ListRequest {
        pools: Some(pool).filter(|pool| !pool.is_empty()).map(str::to_owned).into_iter().collect(),
        states: vec![LeaseState::Queued.into()],
        page_size: rows,
        ..pb::ListRequest::default()
    };
    Ok(allowed::<S, _>(source.list(request).await)?.unwrap_or_default())
}

/// A page of the queue of a pool; of all pools with an empty name.
///
/// # Errors
/// The error of a question that failed for another reason than the caller's roles.
pub(crate) async fn queue<S: Source>(source: &S, pool: &str, after: &str) -> Result<Queue, S::Error> {
    let request = pb::ListQueueRequest {
        pool: pool.to_owned(),
        page_size: ROWS,
        page_token: after.to_owned(),
        ..pb::ListQueueRequest::default()
    };
    let page = allowed::<S, _>(source.list_queue(request).await)?;
    let mut queue = Queue { pool: pool.to_owned(), page, said: Vec::new() };
    let firsts = queue.classes().into_iter().filter_map(|class| class.requests.first()?.lease.clone());
    let firsts: Vec<pb::Lease> = firsts.collect();
    queue.said = explained(source, &firsts, LOOKED_UP).await?;
    Ok(queue)
}
