//! One verb on several resources: a page with what it would end, a form, a call for each resource, and how each of them ended.
//!
//! The resources are those that a person has selected, or all of a filter. The form names each of them, so that what is carried out is what
//! was shown.

use super::act::{Filled, OTHERS, Order, digest, fault_of, number, span_of};
use super::answer::{Asked, Form, Page, verbs};
use super::ask::Ask;
use super::screen::{ResourceFilter, Screen};
use super::verb::{Act, Target, word};
use super::view::{self, BulkForm, Carried, Preview};
use crate::auth::Verb;
use crate::overview;
use crate::pb;
use crate::rpc::{Inside, InsideCaller, InsideError, RefusalKind};
use axum::http::StatusCode;
use axum::response::Response;

/// Maximum number of resources of one form.
const MAX_BULK: usize = 500;
/// Maximum number of pages of a list that are looked at for a filter.
const MAX_PAGES: usize = 60;

/// A verb on several resources, with what it would end.
struct Bulk {
    verb: Verb,
    who: String,
    resources: Vec<pb::Resource>,
    preview: Preview,
}

/// The fault of a request that the page cannot show a form for.
fn bad(message: impl Into<String>) -> InsideError {
    InsideError { kind: RefusalKind::Request, reason: String::new(), message: message.into() }
}

/// The calls ended before the last one.
fn stopped() -> InsideError {
    let message = "the server stopped before the last resource: the audit trail has those that were done".to_owned();
    InsideError { kind: RefusalKind::Internal, reason: String::new(), message }
}

/// The verb of a form, for resources.
fn verb_of(form: &Form) -> Result<Verb, InsideError> {
    let known = Target::Resource(String::new()).verbs().iter().copied();
    known
        .into_iter()
        .find(|verb| word(*verb) == form.value("verb"))
        .ok_or_else(|| bad("the address names no verb for resources"))
}

/// The act of the verb on one resource.
fn on(verb: Verb, id: &str) -> Act {
    Act { verb, target: Target::Resource(id.to_owned()) }
}

impl Page {
    /// The page of a verb on several resources.
    pub(super) async fn bulk_form(&self, asked: &Asked<'_>, form: &Form) -> Response {
        match self.bulk_of(asked, form).await {
            Ok(bulk) => self.bulk_page(asked, &bulk, &Filled::default()),
            Err(error) => self.failed(asked, &error, None),
        }
    }

    /// The verb and the resources of a form or an address.
    async fn bulk_of(&self, asked: &Asked<'_>, form: &Form) -> Result<Bulk, InsideError> {
        let told = self.who(&asked.caller).await?;
        let verb = verb_of(form)?;
        let ask = Ask { inside: &self.inside, caller: &asked.caller, since: 0, verbs: verbs(&told) };
        let resources = match form.value("all").is_empty() {
            true => ask.selected(form).await?,
            false => ask.filtered(form).await?,
        };
        if resources.is_empty() {
            return Err(bad("no resource is selected: go back and select some"));
        }
        let mut preview = Preview::default();
        if on(verb, "").breaks() {
            for resource in &resources {
                match ask.ends(&on(verb, &resource.id)).await {
                    Ok(ends) => preview.add(ends),
                    // It is refused again when the form is carried out, and the result names it.
                    Err(error) if matches!(error.kind, RefusalKind::NotFound | RefusalKind::Request) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Bulk { verb, who: told.principal, resources, preview })
    }

    fn bulk_page(&self, asked: &Asked<'_>, bulk: &Bulk, filled: &Filled<'_>) -> Response {
        let status = if filled.refused.is_empty() { StatusCode::OK } else { StatusCode::CONFLICT };
        let act = on(bulk.verb, "");
        let count = bulk.resources.len().to_string();
        let form = BulkForm {
            act: &act,
            resources: &bulk.resources,
            preview: &bulk.preview,
            confirm: if act.is_final() { &count } else { "" },
            seen: &digest(&bulk.preview),
            once: &number(),
            refused: filled.refused,
            reason: filled.reason,
            time: filled.time,
        };
        self.page(asked, Some(&bulk.who), status, &view::title(bulk.verb), &view::bulk(&form))
    }

    /// Carries a form out, resource by resource.
    pub(super) async fn bulk(&self, asked: &Asked<'_>, form: &Form) -> Response {
        let bulk = match self.bulk_of(asked, form).await {
            Ok(bulk) => bulk,
            Err(error) => return self.failed(asked, &error, None),
        };
        let (reason, time) = (form.value("reason").trim(), form.value("time").trim());
        let again = |refused: &str| self.bulk_page(asked, &bulk, &Filled { reason, time, refused });
        let act = on(bulk.verb, "");
        let count = bulk.resources.len();
        let once = form.value("once");
        let batch = format!("batch {}, {count} resources", once.get(..8).unwrap_or(once));
        let said = match (bulk.verb, reason.is_empty()) {
            // Its text is all that readers see, and an empty one removes the note.
            (Verb::Note, _) => reason.to_owned(),
            (_, true) => batch.clone(),
            (_, false) => format!("{reason} ({batch})"),
        };
        if let Some(fault) = fault_of(&act, reason).or_else(|| fault_of(&act, &said)) {
            return again(fault);
        }
        if act.ends_leases(time) && form.value("seen") != digest(&bulk.preview) {
            return again(OTHERS);
        }
        if act.is_final() && form.value("confirm").trim() != count.to_string() {
            return again(&format!("To confirm, write {count} into the last field."));
        }
        let span = match span_of(bulk.verb, time) {
            Ok(span) => span,
            Err(fault) => return again(&fault),
        };
        if once.is_empty() || once.len() > 64 || !self.done.note(once) {
            return again("This form was carried out before: the audit trail has the entries.");
        }
        let orders = Orders {
            inside: self.inside.clone(),
            caller: asked.caller.clone(),
            verb: bulk.verb,
            resources: bulk.resources,
            reason: said,
            span,
        };
        // Ends with its last call, also if the tab is closed before.
        let Ok(carried) = tokio::spawn(orders.carry_out()).await else {
            return self.failed(asked, &stopped(), Some(&bulk.who));
        };
        let title = view::title(bulk.verb);
        self.page(asked, Some(&bulk.who), StatusCode::OK, &title, &view::carried(bulk.verb, &batch, &carried))
    }
}

/// The calls of one form.
struct Orders {
    inside: Inside,
    caller: InsideCaller,
    verb: Verb,
    resources: Vec<pb::Resource>,
    reason: String,
    span: Option<prost_types::Duration>,
}

impl Orders {
    /// Calls the method for each resource, one after the other. A refusal ends none of the others.
    async fn carry_out(self) -> Vec<Carried> {
        let ask = Ask { inside: &self.inside, caller: &self.caller, since: 0, verbs: crate::auth::Verbs::default() };
        let mut carried = Vec::with_capacity(self.resources.len());
        for resource in &self.resources {
            let ended = ask.carry_out(&on(self.verb, &resource.id), &self.reason, self.span, Order::Now).await;
            carried.push(Carried {
                id: resource.id.clone(),
                item: resource.item.clone(),
                refused: ended.err().map(|error| error.message).unwrap_or_default(),
            });
        }
        carried
    }
}

impl Ask<'_> {
    /// The resources that a form names.
    async fn selected(self, form: &Form) -> Result<Vec<pb::Resource>, InsideError> {
        let mut ids: Vec<&str> = form.values("id").collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > MAX_BULK {
            return Err(bad(format!("{} resources are selected: at most {MAX_BULK} at a time", ids.len())));
        }
        let mut resources = Vec::with_capacity(ids.len());
        for id in ids {
            resources.push(overview::resource(&self, id).await?);
        }
        Ok(resources)
    }

    /// All resources of a filter.
    async fn filtered(self, form: &Form) -> Result<Vec<pb::Resource>, InsideError> {
        let value = |name: &str| form.value(name).trim().to_owned();
        let mut filter =
            ResourceFilter { pool: value("pool"), state: value("state"), text: value("q"), after: String::new() };
        let mut resources = Vec::new();
        for _ in 0..MAX_PAGES {
            let page = self.resources(&filter).await?;
            resources.extend(page.list);
            if resources.len() > MAX_BULK {
                return Err(bad(format!("the filter has more than {MAX_BULK} resources: narrow it")));
            }
            if page.next.is_empty() {
                return Ok(resources);
            }
            filter.after = page.next;
        }
        let url = Screen::Resources(ResourceFilter { after: String::new(), ..filter }).url();
        Err(bad(format!("the farm is too large for the filter of {url}: name a pool or a state")))
    }
}
