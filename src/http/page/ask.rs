//! Asks the services for what a screen shows. Each answer is bounded: nothing grows with the farm.
//!
//! It calls `List`, `Explain`, `Timeline` and the reads of operators alone: no answer of these has credentials.

use crate::auth::{Verb, Verbs};
use crate::http::page::screen::{EventFilter, LeaseFilter, ResourceFilter, Screen};
use crate::http::page::verb::Target;
use crate::http::page::view;
use crate::overview::{self, LOOK, LOOKED_UP, ROWS, Refused, Source, seconds};
use crate::pb;
use crate::rpc::{Inside, InsideCaller, InsideError, RefusalKind};
use maud::{Markup, html};
use pb::ResourceState as State;

/// Maximum number of pages that one search looks at.
const SEARCHED: usize = 20;
/// Maximum number of entries of a story.
const STORY: i32 = 200;
/// Maximum number of leases of a work whose resources are looked up in the audit trail.
const NAMED: usize = 25;
/// Maximum number of steps along a chain of replacements, in one direction.
const CHAIN: usize = 8;

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
    overview::allowed::<Ask<'_>, T>(answer)
}

impl Source for Ask<'_> {
    type Error = InsideError;

    fn refused(error: &InsideError) -> Refused {
        match error.kind {
            RefusalKind::NotAllowed => Refused::NotAllowed,
            RefusalKind::NotFound => Refused::NotFound,
            RefusalKind::Unknown | RefusalKind::Request | RefusalKind::Unavailable | RefusalKind::Internal => {
                Refused::Otherwise
            }
        }
    }

    async fn server(&self) -> Answer<pb::GetServerResponse> {
        self.inside.get_server(self.caller, pb::GetServerRequest {}).await
    }

    async fn list_pools(&self) -> Answer<pb::ListPoolsResponse> {
        self.inside.list_pools(self.caller, pb::ListPoolsRequest { min_revision: self.since }).await
    }

    async fn list_resources(&self, request: pb::ListResourcesRequest) -> Answer<pb::ListResourcesResponse> {
        let request = pb::ListResourcesRequest { min_revision: self.since, ..request };
        self.inside.list_resources(self.caller, request).await
    }

    async fn get_resource(&self, request: pb::GetResourceRequest) -> Answer<pb::GetResourceResponse> {
        let request = pb::GetResourceRequest { min_revision: self.since, ..request };
        self.inside.get_resource(self.caller, request).await
    }

    async fn events(&self, request: pb::EventsRequest) -> Answer<pb::EventsResponse> {
        self.inside.events(self.caller, pb::EventsRequest { min_revision: self.since, ..request }).await
    }

    async fn list(&self, request: pb::ListRequest) -> Answer<pb::ListResponse> {
        self.inside.list(self.caller, pb::ListRequest { min_revision: self.since, ..request }).await
    }

    async fn list_queue(&self, request: pb::ListQueueRequest) -> Answer<pb::ListQueueResponse> {
        self.inside.list_queue(self.caller, pb::ListQueueRequest { min_revision: self.since, ..request }).await
    }

    async fn explain(&self, lease: &str) -> Answer<pb::ExplainResponse> {
        let request = pb::ExplainRequest { lease_id: lease.to_owned(), min_revision: self.since };
        self.inside.explain(self.caller, request).await
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
            Screen::Now => shown("Now", view::now(&overview::now(&self).await?)),
            Screen::Pools => {
                let told = self.list_pools().await?;
                shown("Pools", view::pools(&told.pools))
            }
            Screen::Pool(name) => shown(&format!("Pool {name}"), view::pool(&self.pool(name).await?)),
            Screen::Resources(filter) => shown("Resources", view::resources(&self.resources(filter).await?)),
            Screen::Resource { id, span } => {
                let resource = overview::resource(&self, id).await?;
                let name = if resource.item.is_empty() { resource.id.clone() } else { resource.item.clone() };
                let story =
                    allowed(self.story(pb::TimelineRequest { resource_id: resource.id.clone(), ..story() }).await)?;
                let mut leases = Vec::new();
                for id in resource.lease_ids.iter().take(LOOKED_UP) {
                    leases.extend(overview::lease(&self, id).await?);
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
            Screen::Queue { pool, after } => {
                shown("Queue", view::queue(&overview::queue(&self, pool, after).await?, seconds()))
            }
            Screen::Events(filter) => shown("Events", view::events(&self.events(filter).await?)),
            Screen::Map { pool, by } => shown("Map", view::map(&overview::map(&self, pool, by).await?)),
            Screen::SpotStats => {
                let told = self.inside.weather(self.caller, pb::WeatherRequest {}).await?;
                shown("Spot", view::spot_stats(told.lines, seconds()))
            }
            Screen::Servers => shown("Servers", view::servers(&self.servers().await?)),
        })
    }

    /// The verbs for a target that the caller may use.
    fn actions(self, target: &Target) -> Markup {
        view::verbs(target, &|verb: Verb| self.verbs.has(verb))
    }

    async fn pool(self, name: &str) -> Answer<view::OnePool> {
        let request = pb::GetPoolRequest { name: name.to_owned(), min_revision: self.since };
        let pool = self.inside.get_pool(self.caller, request).await?.pool.unwrap_or_default();
        let trouble = overview::trouble(&self, vec![name.to_owned()], ROWS).await?.unwrap_or_default().0;
        let waiting = overview::waiting(&self, name, 10).await?.leases;
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

    pub(super) async fn resources(self, filter: &ResourceFilter) -> Answer<view::Resources> {
        let names = allowed(self.list_pools().await)?.unwrap_or_default().pools;
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
            may: self.verbs,
        };
        if filter.text.is_empty() {
            let page = self.list_resources(request).await?;
            return Ok(told(page.resources, page.next_page_token, None));
        }
        let (mut list, mut looked) = (Vec::new(), 0);
        for _ in 0..SEARCHED {
            let page = self.list_resources(request.clone()).await?;
            looked += page.resources.len();
            list.extend(page.resources.into_iter().filter(|resource| has(resource, &filter.text)));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || list.len() >= usize::try_from(ROWS).unwrap_or(0) {
                break;
            }
        }
        Ok(told(list, request.page_token, Some(looked)))
    }

    async fn story(self, request: pb::TimelineRequest) -> Answer<pb::TimelineResponse> {
        self.inside.timeline(self.caller, pb::TimelineRequest { min_revision: self.since, ..request }).await
    }

    async fn leases(self, filter: &LeaseFilter) -> Answer<view::Leases> {
        let states = view::lease_states().filter(|(_, name)| *name == filter.state);
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().collect();
        // A holder or a work is looked for among all of its leases, also those that have ended.
        let all = filter.state.is_empty() && !(filter.holder.is_empty() && filter.work.is_empty());
        let states = match all {
            true => view::lease_states().map(|(state, _)| state.into()).collect(),
            false => states.map(|(state, _)| state.into()).collect(),
        };
        let request = pb::ListRequest {
            pools: some(&filter.pool),
            holders: some(&filter.holder),
            works: some(&filter.work),
            states,
            page_size: ROWS,
            page_token: filter.after.clone(),
            min_revision: self.since,
            ..pb::ListRequest::default()
        };
        let page = self.inside.list(self.caller, request).await?;
        let mut list = page.leases;
        if !filter.work.is_empty() {
            self.name_resources(&mut list).await?;
        }
        Ok(view::Leases { filter: filter.clone(), list, next: page.next_page_token })
    }

    /// Fills in the resource of each lease that has ended and left its slot, from the audit trail; of the last ones alone.
    async fn name_resources(self, list: &mut [pb::Lease]) -> Answer<()> {
        let left = list.iter_mut().rev().filter(|lease| lease.resource_id.is_empty() && lease.ended_at.is_some());
        for lease in left.take(NAMED) {
            let request = pb::EventsRequest {
                lease_id: lease.id.clone(),
                newest_first: true,
                page_size: 20,
                min_revision: self.since,
                ..pb::EventsRequest::default()
            };
            // Without the role for the trail the place stays empty.
            let Some(told) = allowed(self.inside.events(self.caller, request).await)? else { return Ok(()) };
            let on = told.events.into_iter().find(|event| event.kind == "lease.active");
            lease.resource_id = on.map(|event| event.resource_id).unwrap_or_default();
        }
        Ok(())
    }

    async fn one_lease(self, id: &str) -> Answer<view::OneLease> {
        let request = pb::ExplainRequest { lease_id: id.to_owned(), min_revision: self.since };
        let said = self.inside.explain(self.caller, request).await?;
        let story = overview::found::<Ask<'_>, _>(
            self.story(pb::TimelineRequest { lease_id: id.to_owned(), ..story() }).await,
        )?;
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
            let Some(lease) = overview::lease(&self, &id).await? else { break };
            id = next(&lease);
            chain.push(lease);
        }
        Ok(chain)
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
        let warnings = allowed(self.list_pools().await)?.map(|told| told.warnings).unwrap_or_default();
        let all = self.inside.list_servers(self.caller, pb::ListServersRequest {}).await?.servers;
        Ok(view::Servers { standing: self.inside.standing(), server, all, warnings })
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
