//! Asks the services for what a screen shows. Each answer is bounded: nothing grows with the farm.
//!
//! It calls `List`, `Explain`, `Timeline` and the reads of operators alone: no answer of these has credentials.

use crate::auth::{Verb, Verbs};
use crate::http::page::part::{instant, seconds};
use crate::http::page::screen::{EventFilter, LeaseFilter, ResourceFilter, Screen};
use crate::http::page::verb::Target;
use crate::http::page::view;
use crate::pb;
use crate::rpc::{Inside, InsideCaller, InsideError, RefusalKind};
use maud::{Markup, html};
use pb::{LeaseState, ResourceState as State};

/// Maximum number of rows of a page.
const ROWS: i32 = 100;
/// Maximum number of resources in trouble on *Now*.
const TROUBLE: i32 = 20;
/// Maximum number of leases that are looked up one by one for one screen.
const LOOKED_UP: usize = 12;
/// Maximum number of requests of the queue that are explained.
const EXPLAINED: usize = 25;
/// Maximum number of pages that one search looks at.
const SEARCHED: usize = 20;
/// Entries of the trail among which *Now* looks for broken leases.
const LATEST: i32 = 300;
/// Maximum number of entries of a story.
const STORY: i32 = 200;
/// Maximum number of steps along a chain of replacements, in one direction.
const CHAIN: usize = 8;
const HOUR: i64 = 3_600;

/// States that need a look.
const LOOK: [State; 5] = [State::Suspect, State::Repairing, State::Quarantined, State::Draining, State::Orphaned];

type Answer<T> = Result<T, InsideError>;

/// A screen that was asked for.
pub(crate) struct Shown {
    pub(crate) title: String,
    pub(crate) main: Markup,
}

/// The caller, and the services that it asks.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) inside: &'a Inside,
    pub(crate) caller: &'a InsideCaller,
    /// The answers are not older than this revision.
    pub(crate) since: u64,
    /// The verbs that the caller has somewhere.
    pub(crate) verbs: Verbs,
}

/// The answer, or `None` where the roles of the caller do not allow the question.
fn allowed<T>(answer: Answer<T>) -> Answer<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == RefusalKind::NotAllowed => Ok(None),
        Err(error) => Err(error),
    }
}

/// The answer, or `None` where the caller may not ask or there is nothing by that name.
fn found<T>(answer: Answer<T>) -> Answer<Option<T>> {
    match answer {
        Err(error) if error.kind == RefusalKind::NotFound => Ok(None),
        answer => allowed(answer),
    }
}

impl Ask<'_> {
    /// Asks for a screen.
    ///
    /// # Errors
    /// [`InsideError`] of the first question without which there is no screen.
    pub(crate) async fn screen(self, screen: &Screen) -> Answer<Shown> {
        let shown = |title: &str, main: Markup| Shown { title: title.to_owned(), main };
        Ok(match screen {
            Screen::Now => shown("Now", view::now(&self.now().await?)),
            Screen::Pools => {
                let told = self.pools().await?;
                shown("Pools", view::pools(&told.pools))
            }
            Screen::Pool(name) => shown(&format!("Pool {name}"), view::pool(&self.pool(name).await?)),
            Screen::Resources(filter) => shown("Resources", view::resources(&self.resources(filter).await?)),
            Screen::Resource { id, span } => {
                let resource = self.resource(id).await?;
                let name = if resource.item.is_empty() { resource.id.clone() } else { resource.item.clone() };
                let story =
                    allowed(self.story(pb::TimelineRequest { resource_id: resource.id.clone(), ..story() }).await)?;
                let mut leases = Vec::new();
                for id in resource.lease_ids.iter().take(LOOKED_UP) {
                    leases.extend(self.lease(id).await?);
                }
                let actions = match resource.state() {
                    State::Gone => html! {},
                    _ => self.actions(&Target::Resource(resource.id.clone())),
                };
                let one = view::OneResource { resource, story, leases, span: *span, now: seconds(), actions };
                shown(&name, view::resource(&one))
            }
            Screen::Leases(filter) => shown("Leases", view::leases(&self.leases(filter).await?)),
            Screen::Lease(id) => shown("Lease", view::lease(&self.one_lease(id).await?)),
            Screen::Queue { pool } => shown("Queue", view::queue(&self.queue(pool).await?)),
            Screen::Events(filter) => shown("Events", view::events(&self.events(filter).await?)),
            Screen::Servers => shown("Servers", view::servers(&self.servers().await?)),
        })
    }

    /// The verbs for a target that the caller may use.
    fn actions(self, target: &Target) -> Markup {
        view::verbs(target, &|verb: Verb| self.verbs.has(verb))
    }

    async fn pools(self) -> Answer<pb::ListPoolsResponse> {
        self.inside.list_pools(self.caller, pb::ListPoolsRequest { min_revision: self.since }).await
    }

    async fn now(self) -> Answer<view::Now> {
        let told = allowed(self.pools().await)?;
        let (pools, warnings) = told.map_or((None, Vec::new()), |told| (Some(told.pools), told.warnings));
        // A walk over all resources is for farms where some need a look.
        let any = |pool: &pb::Pool| pool.resources.iter().any(|count| LOOK.contains(&count.state()) && count.count > 0);
        let troubled: Vec<String> =
            pools.iter().flatten().filter(|pool| any(pool)).map(|pool| pool.name.clone()).collect();
        let trouble = match troubled.is_empty() && pools.is_some() {
            true => Some((Vec::new(), false)),
            false => self.trouble(troubled, TROUBLE).await?,
        };
        let hits = self.hits(trouble.iter().flat_map(|(list, _)| list)).await?;
        let waiting = self.waiting("", ROWS).await?;
        let said = self.explained(&waiting.leases, EXPLAINED).await?;
        let unmet = said.into_iter().filter(|said| !said.satisfiable && said.position > 0).collect();
        let broken = self.broken().await?;
        Ok(view::Now { standing: self.inside.standing(), pools, warnings, trouble, hits, unmet, broken })
    }

    /// Resources that need a look, and whether there are more.
    async fn trouble(self, pools: Vec<String>, rows: i32) -> Answer<Option<(Vec<pb::Resource>, bool)>> {
        let request = pb::ListResourcesRequest {
            pools,
            states: LOOK.map(i32::from).to_vec(),
            page_size: rows,
            min_revision: self.since,
            ..pb::ListResourcesRequest::default()
        };
        let told = allowed(self.inside.list_resources(self.caller, request).await)?;
        Ok(told.map(|told| (told.resources, !told.next_page_token.is_empty())))
    }

    /// The holders of leases on resources, and on the copies that lie on them.
    async fn hits(self, resources: impl Iterator<Item = &pb::Resource>) -> Answer<Vec<view::Hit>> {
        let mut hits = Vec::new();
        let mut left = LOOKED_UP;
        for resource in resources {
            let mut ids: Vec<String> = resource.lease_ids.clone();
            while let Some(id) = ids.pop() {
                if left == 0 {
                    return Ok(hits);
                }
                left -= 1;
                let Some(lease) = self.lease(&id).await? else { continue };
                if lease.child_resource_id.is_empty() {
                    hits.push(view::Hit { resource: resource.id.clone(), lease: lease.id, holder: lease.holder });
                    continue;
                }
                let copy = found(self.resource(&lease.child_resource_id).await)?;
                ids.extend(copy.map(|copy| copy.lease_ids).unwrap_or_default());
            }
        }
        Ok(hits)
    }

    /// One lease, without credentials. `None`: there is none in the caller's view.
    pub(crate) async fn lease(self, id: &str) -> Answer<Option<pb::Lease>> {
        let request = pb::ExplainRequest { lease_id: id.to_owned(), min_revision: self.since };
        Ok(found(self.inside.explain(self.caller, request).await)?.and_then(|said| said.lease))
    }

    async fn explained(self, leases: &[pb::Lease], limit: usize) -> Answer<Vec<pb::ExplainResponse>> {
        let mut all = Vec::new();
        for lease in leases.iter().take(limit) {
            let request = pb::ExplainRequest { lease_id: lease.id.clone(), min_revision: self.since };
            all.extend(found(self.inside.explain(self.caller, request).await)?);
        }
        Ok(all)
    }

    /// The leases that broke within the last hour, the latest ones, and their number.
    async fn broken(self) -> Answer<Option<(Vec<pb::Lease>, usize)>> {
        let request = pb::EventsRequest {
            newest_first: true,
            page_size: LATEST,
            min_revision: self.since,
            ..pb::EventsRequest::default()
        };
        let Some(told) = allowed(self.inside.events(self.caller, request).await)? else { return Ok(None) };
        let since = seconds() - HOUR;
        let recent = |event: &&pb::Event| {
            event.kind == "lease.broken" && instant(event.at.as_ref()).is_some_and(|at| at.as_second() >= since)
        };
        let ids: Vec<&str> = told.events.iter().filter(recent).map(|event| &*event.lease_id).collect();
        let mut leases = Vec::new();
        for id in ids.iter().take(LOOKED_UP) {
            leases.extend(self.lease(id).await?);
        }
        // The lease that holds a copy on its host breaks with it, and is no one's work.
        let all = leases.len();
        leases.retain(|lease: &pb::Lease| lease.child_resource_id.is_empty());
        let count = ids.len() - (all - leases.len());
        Ok(Some((leases, count)))
    }

    /// The oldest requests that wait. Empty where the caller may not list leases.
    async fn waiting(self, pool: &str, rows: i32) -> Answer<pb::ListResponse> {
        let request = pb::ListRequest {
            pools: Some(pool).filter(|pool| !pool.is_empty()).map(str::to_owned).into_iter().collect(),
            states: vec![LeaseState::Queued.into()],
            page_size: rows,
            min_revision: self.since,
            ..pb::ListRequest::default()
        };
        Ok(allowed(self.inside.list(self.caller, request).await)?.unwrap_or_default())
    }

    async fn pool(self, name: &str) -> Answer<view::OnePool> {
        let request = pb::GetPoolRequest { name: name.to_owned(), min_revision: self.since };
        let pool = self.inside.get_pool(self.caller, request).await?.pool.unwrap_or_default();
        let trouble = self.trouble(vec![name.to_owned()], ROWS).await?.unwrap_or_default().0;
        let waiting = self.waiting(name, 10).await?.leases;
        let request = pb::EventsRequest {
            pool: name.to_owned(),
            newest_first: true,
            page_size: 20,
            ..pb::EventsRequest::default()
        };
        let events = allowed(self.inside.events(self.caller, request).await)?.map(|told| told.events);
        let actions = self.actions(&Target::Pool(name.to_owned()));
        Ok(view::OnePool { pool, trouble, waiting, events, actions, may: self.verbs })
    }

    async fn resources(self, filter: &ResourceFilter) -> Answer<view::Resources> {
        let names = allowed(self.pools().await)?.unwrap_or_default().pools;
        let states = match &*filter.state {
            "trouble" => LOOK.to_vec(),
            word => view::resource_states().filter(|(_, name)| name == word).map(|(state, _)| state).collect(),
        };
        let mut request = pb::ListResourcesRequest {
            pools: Some(filter.pool.clone()).filter(|pool| !pool.is_empty()).into_iter().collect(),
            states: states.into_iter().map(i32::from).collect(),
            page_size: ROWS,
            page_token: filter.after.clone(),
            min_revision: self.since,
        };
        let told = |list, next, looked| view::Resources {
            filter: filter.clone(),
            list,
            next,
            looked,
            pools: names.iter().map(|pool| pool.name.clone()).collect(),
        };
        if filter.text.is_empty() {
            let page = self.inside.list_resources(self.caller, request).await?;
            return Ok(told(page.resources, page.next_page_token, None));
        }
        let (mut list, mut looked) = (Vec::new(), 0);
        for _ in 0..SEARCHED {
            let page = self.inside.list_resources(self.caller, request.clone()).await?;
            looked += page.resources.len();
            list.extend(page.resources.into_iter().filter(|resource| has(resource, &filter.text)));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || list.len() >= usize::try_from(ROWS).unwrap_or(0) {
                break;
            }
        }
        Ok(told(list, request.page_token, Some(looked)))
    }

    /// A resource, by its id or the name of its machine.
    pub(crate) async fn resource(self, id: &str) -> Answer<pb::Resource> {
        let (resource_id, machine) = match id.starts_with("res_") {
            true => (id.to_owned(), String::new()),
            false => (String::new(), id.to_owned()),
        };
        let request = pb::GetResourceRequest { resource_id, machine, min_revision: self.since };
        Ok(self.inside.get_resource(self.caller, request).await?.resource.unwrap_or_default())
    }

    async fn story(self, request: pb::TimelineRequest) -> Answer<pb::TimelineResponse> {
        self.inside.timeline(self.caller, pb::TimelineRequest { min_revision: self.since, ..request }).await
    }

    async fn leases(self, filter: &LeaseFilter) -> Answer<view::Leases> {
        let states = view::lease_states().filter(|(_, name)| *name == filter.state);
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().collect();
        // A holder is looked for among all of its leases, also those that have ended.
        let all = filter.state.is_empty() && !filter.holder.is_empty();
        let states = match all {
            true => view::lease_states().map(|(state, _)| state.into()).collect(),
            false => states.map(|(state, _)| state.into()).collect(),
        };
        let request = pb::ListRequest {
            pools: some(&filter.pool),
            holders: some(&filter.holder),
            states,
            page_size: ROWS,
            page_token: filter.after.clone(),
            min_revision: self.since,
            ..pb::ListRequest::default()
        };
        let page = self.inside.list(self.caller, request).await?;
        Ok(view::Leases { filter: filter.clone(), list: page.leases, next: page.next_page_token })
    }

    async fn one_lease(self, id: &str) -> Answer<view::OneLease> {
        let request = pb::ExplainRequest { lease_id: id.to_owned(), min_revision: self.since };
        let said = self.inside.explain(self.caller, request).await?;
        let story = found(self.story(pb::TimelineRequest { lease_id: id.to_owned(), ..story() }).await)?;
        let own = said.lease.clone().unwrap_or_default();
        let mut before = self.chain(own.replaces_id, |lease| lease.replaces_id.clone()).await?;
        before.reverse();
        let after = self.chain(own.replacement_id, |lease| lease.replacement_id.clone()).await?;
        let ended = said.lease.as_ref().is_none_or(|lease| lease.ended_at.is_some());
        let actions = if ended {
            html! {}
        } else {
            self.actions(&Target::Lease(id.to_owned()))
        };
        Ok(view::OneLease { said, story, before, after, actions })
    }

    /// The leases that follow each other from this one on.
    async fn chain(self, first: String, next: impl Fn(&pb::Lease) -> String) -> Answer<Vec<pb::Lease>> {
        let (mut chain, mut id) = (Vec::new(), first);
        while !id.is_empty() && chain.len() < CHAIN {
            let Some(lease) = self.lease(&id).await? else { break };
            id = next(&lease);
            chain.push(lease);
        }
        Ok(chain)
    }

    async fn queue(self, pool: &str) -> Answer<view::Queue> {
        let page = self.waiting(pool, ROWS).await?;
        let said = self.explained(&page.leases, EXPLAINED).await?;
        let more = !page.next_page_token.is_empty();
        Ok(view::Queue { pool: pool.to_owned(), list: page.leases, more, said })
    }

    async fn events(self, filter: &EventFilter) -> Answer<view::Events> {
        let mut request = pb::EventsRequest {
            pool: filter.pool.clone(),
            resource_id: filter.resource.clone(),
            lease_id: filter.lease.clone(),
            newest_first: true,
            page_size: ROWS,
            page_token: filter.after.clone(),
            min_revision: self.since,
            ..pb::EventsRequest::default()
        };
        let told = |list, next, looked| view::Events { filter: filter.clone(), list, next, looked };
        if filter.kind.is_empty() {
            let page = self.inside.events(self.caller, request).await?;
            return Ok(told(page.events, page.next_page_token, None));
        }
        let (mut list, mut looked) = (Vec::new(), 0);
        for _ in 0..SEARCHED {
            let page = self.inside.events(self.caller, request.clone()).await?;
            looked += page.events.len();
            list.extend(page.events.into_iter().filter(|event| event.kind.starts_with(&filter.kind)));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || list.len() >= usize::try_from(ROWS).unwrap_or(0) {
                break;
            }
        }
        Ok(told(list, request.page_token, Some(looked)))
    }

    async fn servers(self) -> Answer<view::Servers> {
        let server = self.inside.get_server(self.caller, pb::GetServerRequest {}).await?;
        let warnings = allowed(self.pools().await)?.map(|told| told.warnings).unwrap_or_default();
        Ok(view::Servers { standing: self.inside.standing(), server, warnings })
    }
}

fn story() -> pb::TimelineRequest {
    pb::TimelineRequest { limit: STORY, ..pb::TimelineRequest::default() }
}

/// Whether a resource has this text in its id, its machine, its address or a label.
fn has(resource: &pb::Resource, text: &str) -> bool {
    let text = text.to_lowercase();
    let address = match resource.access.as_ref().and_then(|access| access.via.as_ref()) {
        Some(pb::access::Via::Ssh(ssh)) => ssh.address.as_str(),
        Some(pb::access::Via::Local(local)) => local.address.as_str(),
        None => "",
    };
    [&*resource.id, &*resource.item, address].iter().any(|part| part.to_lowercase().contains(&text))
        || resource.labels.iter().any(|(key, value)| format!("{key}={value}").to_lowercase().contains(&text))
}
