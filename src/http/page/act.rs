//! Carries out the verbs of operators: a page with a preview, a form, a call, and back to what it is about.
//!
//! The call is that of the API, by the caller's own identity, and so is the preview. A verb that breaks leases is refused if a lease came
//! since the preview. A form counts once.

use super::answer::{Asked, Form, Page, see_other};
use super::ask::Ask;
use super::part::visible;
use super::verb::{Act, Target, word};
use super::view::{self, ActForm, Preview};
use crate::auth::{Verb, Verbs, hex};
use crate::duration;
use crate::overview;
use crate::pb;
use crate::random::random;
use crate::rpc::{InsideError, RefusalKind};
use axum::http::StatusCode;
use axum::response::Response;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of forms that are remembered as done.
const DONE: usize = 1_024;
/// Maximum length of a reason in bytes, as in the API.
const MAX_REASON: usize = 4_096;
/// The refusal of a form whose preview is old.
pub(super) const OTHERS: &str = "Other leases are on it than you were shown. This is how it is now: look again.";

/// The forms that were carried out. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Done(Arc<Mutex<VecDeque<String>>>);

impl Done {
    /// Notes a form. False: it was carried out before.
    pub(super) fn note(&self, once: &str) -> bool {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if done.iter().any(|known| known == once) {
            return false;
        }
        if done.len() >= DONE {
            done.pop_front();
        }
        done.push_back(once.to_owned());
        true
    }

    /// Whether a form was carried out before.
    fn has(&self, once: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == once)
    }

    /// Forgets a form that did nothing.
    fn forget(&self, once: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != once);
    }
}

/// The fields that a person has filled in.
#[derive(Default)]
pub(super) struct Filled<'f> {
    pub(super) reason: &'f str,
    pub(super) time: &'f str,
    pub(super) refused: &'f str,
}

impl Page {
    /// The page of a verb.
    pub(super) async fn act_form(&self, asked: &Asked<'_>, act: &Act) -> Response {
        match self.looked_at(asked, act).await {
            Ok((who, preview, name)) => {
                let note = preview.note.lines().map(visible).collect::<Vec<_>>().join("\n");
                let filled = Filled { reason: &note, ..Filled::default() };
                self.form(asked, &who, act, (&preview, &name), &filled)
            }
            Err(error) => self.failed(asked, &error, None),
        }
    }

    /// The caller, what the verb would end, and the name of its target.
    async fn looked_at(&self, asked: &Asked<'_>, act: &Act) -> Result<(String, Preview, String), InsideError> {
        let who = self.who(&asked.caller).await?.principal;
        let ask = Ask { inside: &self.inside, caller: &asked.caller, since: 0, verbs: Verbs::default() };
        let (preview, name) = ask.preview(act).await?;
        Ok((who, preview, name))
    }

    fn form(
        &self,
        asked: &Asked<'_>,
        who: &str,
        act: &Act,
        (preview, name): (&Preview, &str),
        filled: &Filled<'_>,
    ) -> Response {
        let status = if filled.refused.is_empty() { StatusCode::OK } else { StatusCode::CONFLICT };
        let form = ActForm {
            act,
            name,
            preview,
            confirm: if act.is_final() { name } else { "" },
            seen: &preview.revision.to_string(),
            once: &number(),
            refused: filled.refused,
            reason: filled.reason,
            time: filled.time,
        };
        self.page(asked, Some(who), status, &view::title(act.verb), &view::act(&form))
    }

    /// Carries a form out.
    pub(super) async fn act(&self, asked: &Asked<'_>, act: &Act, form: &Form) -> Response {
        let once = form.value("once");
        let back = |revision: u64| {
            let url = act.target.screen().url();
            let mark = if url.contains('?') { '&' } else { '?' };
            see_other(&format!("{url}{mark}done={}&since={revision}", word(act.verb)))
        };
        if self.done.has(once) {
            return back(0);
        }
        let (who, preview, name) = match self.looked_at(asked, act).await {
            Ok(found) => found,
            Err(error) => return self.failed(asked, &error, None),
        };
        let (reason, time) = (form.value("reason").trim(), form.value("time").trim());
        let again = |refused: &str| self.form(asked, &who, act, (&preview, &name), &Filled { reason, time, refused });
        if let Some(fault) = fault_of(act, reason) {
            return again(fault);
        }
        let order = match act.ends_leases(time) {
            true => match form.value("seen").parse() {
                Ok(seen) => Order::IfSeen(seen),
                Err(_) => return again(OTHERS),
            },
            false => Order::Now,
        };
        if act.is_final() && form.value("confirm").trim() != name {
            return again(&format!("To confirm, write {name} into the last field."));
        }
        let span = match span_of(act.verb, time) {
            Ok(span) => span,
            Err(fault) => return again(&fault),
        };
        if once.len() > 64 || !self.done.note(once) {
            return back(0);
        }
        let ask = Ask { inside: &self.inside, caller: &asked.caller, since: 0, verbs: Verbs::default() };
        match ask.carry_out(act, reason, span, order).await {
            Ok(carried) => back(carried.revision),
            Err(error) => {
                self.done.forget(once);
                match error.kind {
                    RefusalKind::Request if error.reason == "CHANGED_SINCE" => again(OTHERS),
                    RefusalKind::Request => again(&super::part::clipped(&error.message)),
                    _ => self.failed(asked, &error, Some(&who)),
                }
            }
        }
    }
}

/// The number of a new form.
pub(super) fn number() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// The fault of a reason. `None`: it has none.
pub(super) fn fault_of(act: &Act, reason: &str) -> Option<&'static str> {
    if act.needs_reason() && reason.is_empty() {
        return Some("It needs a reason: who reads the audit trail has to know why.");
    }
    (reason.len() > MAX_REASON).then_some("The reason has more than 4,096 bytes: shorten it.")
}

/// The span of time that a verb takes, from the text of a form.
///
/// # Errors
/// The fault of the text, as a sentence.
pub(super) fn span_of(verb: Verb, time: &str) -> Result<Option<prost_types::Duration>, String> {
    match (verb, time) {
        (Verb::Drain, "") => Ok(None),
        (Verb::Drain | Verb::Hold, text) => {
            let millis = duration::parse(text).map_err(|fault| format!("The time {fault}."))?;
            let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0);
            Ok(Some(prost_types::Duration { seconds: millis / 1000, nanos }))
        }
        _ => Ok(None),
    }
}

/// When a call is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Now, whatever came since the person looked.
    Now,
    /// Now, if no lease came since this revision.
    IfSeen(u64),
    /// Never: the answer says what it would end.
    Validate,
}

/// The answer to a call.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// The revision from which on reads show it. 0: it is not known.
    pub(super) revision: u64,
    /// The leases and copies that it would end. `None`: it was carried out.
    impact: Option<pb::Impact>,
}

/// A digest of the leases that a preview shows.
pub(super) fn digest(preview: &Preview) -> String {
    let mut ids: Vec<&str> = preview.leases.iter().map(|lease| &*lease.id).collect();
    ids.sort_unstable();
    hex(&Sha256::digest(format!("{} {}", ids.join(" "), preview.unseen))[..8])
}

impl Ask<'_> {
    /// The leases that a verb would end, and the name of its target.
    async fn preview(self, act: &Act) -> Result<(Preview, String), InsideError> {
        let mut note = String::new();
        let name = match &act.target {
            Target::Pool(name) => return Ok((Preview::default(), name.clone())),
            Target::Machine(name) => {
                let note = if act.verb == Verb::Note { self.note_of(name).await? } else { String::new() };
                return Ok((Preview { note, ..Preview::default() }, name.clone()));
            }
            Target::Lease(id) => {
                let Some(lease) = overview::lease(&self, id).await? else {
                    let message = format!("there is no lease {id}");
                    return Err(InsideError { kind: RefusalKind::NotFound, reason: "UNKNOWN_LEASE".into(), message });
                };
                if act.verb == Verb::Release {
                    return Ok((Preview { leases: vec![lease], ..Preview::default() }, id.clone()));
                }
                id.clone()
            }
            Target::Resource(id) => {
                let resource = overview::resource(&self, id).await?;
                if act.verb == Verb::Note {
                    note = resource.note.map(|note| note.text).unwrap_or_default();
                }
                if resource.item.is_empty() { resource.id.clone() } else { resource.item.clone() }
            }
        };
        let preview = if act.breaks() { self.ends(act).await? } else { Preview::default() };
        Ok((Preview { note, ..preview }, name))
    }

    /// The note on a machine, by POOL/ITEM.
    async fn note_of(self, machine: &str) -> Result<String, InsideError> {
        let (pool, name) = machine.split_once('/').unwrap_or_default();
        let request = pb::GetPoolRequest { name: pool.to_owned(), min_revision: self.since };
        let pool = self.inside.get_pool(self.caller, request).await?.pool.unwrap_or_default();
        let item = pool.items.into_iter().find(|item| item.name == name);
        Ok(item.and_then(|item| item.note).map(|note| note.text).unwrap_or_default())
    }

    /// The leases and copies that a verb would end; those of a drain, at its deadline.
    pub(super) async fn ends(self, act: &Act) -> Result<Preview, InsideError> {
        let deadline = (act.verb == Verb::Drain).then_some(prost_types::Duration { seconds: 1, nanos: 0 });
        let impact = self.carry_out(act, "", deadline, Order::Validate).await?.impact.ok_or_else(no_impact)?;
        let count = |number: i32| usize::try_from(number).unwrap_or(0);
        let mut preview = Preview {
            put_back: count(impact.put_back_count),
            copies: count(impact.copy_count),
            revision: impact.revision,
            ..Preview::default()
        };
        for id in &impact.broken_lease_ids {
            preview.leases.extend(overview::lease(&self, id).await?);
        }
        preview.unseen = count(impact.broken_count).saturating_sub(preview.leases.len());
        Ok(preview)
    }

    /// Calls the method of a verb.
    pub(super) async fn carry_out(
        self,
        act: &Act,
        reason: &str,
        span: Option<prost_types::Duration>,
        order: Order,
    ) -> Result<Answered, InsideError> {
        let (inside, caller, reason) = (self.inside, self.caller, reason.to_owned());
        let (resource_id, machine, pool) = match &act.target {
            Target::Resource(id) => (id.clone(), String::new(), String::new()),
            Target::Machine(name) => (String::new(), name.clone(), String::new()),
            Target::Pool(name) => (String::new(), String::new(), name.clone()),
            Target::Lease(id) => return self.end(act.verb, id, reason, order).await,
        };
        let (validate_only, if_revision) = order.fields();
        macro_rules! call {
            ($method:ident, $request:ident $(, $field:ident: $value:expr)*) => {{
                let request =
                    pb::$request { resource_id, machine, reason, validate_only, if_revision, $($field: $value),* };
                let answer = inside.$method(caller, request).await?;
                Answered { revision: answer.resource.map_or(0, |resource| resource.revision), impact: answer.impact }
            }};
        }
        Ok(match act.verb {
            Verb::Check => call!(check, CheckRequest),
            Verb::Cordon => call!(cordon, CordonRequest, pool: pool),
            Verb::Uncordon => call!(uncordon, UncordonRequest, pool: pool),
            Verb::Hold => call!(hold, HoldRequest, hold: span, lease_id: String::new()),
            Verb::Recover => call!(recover, RecoverRequest),
            Verb::Drain => call!(drain, DrainRequest, deadline: span),
            Verb::Undrain => call!(undrain, UndrainRequest),
            Verb::Taint => call!(taint, TaintRequest),
            Verb::Quarantine => call!(quarantine, QuarantineRequest),
            Verb::Recycle => call!(recycle, RecycleRequest),
            Verb::ForceDestroy => call!(force_destroy, ForceDestroyRequest),
            Verb::Note => {
                let request = pb::NoteRequest { resource_id, machine, text: reason, validate_only, if_revision };
                let answer = inside.note(caller, request).await?;
                Answered { revision: answer.resource.map_or(0, |resource| resource.revision), impact: answer.impact }
            }
            _ => return Err(no_verb()),
        })
    }

    async fn end(self, verb: Verb, id: &str, reason: String, order: Order) -> Result<Answered, InsideError> {
        let lease_id = id.to_owned();
        let (lease, impact) = match verb {
            Verb::Break => {
                let (validate_only, if_revision) = order.fields();
                let request = pb::BreakRequest { lease_id, reason, validate_only, if_revision };
                let answer = self.inside.r#break(self.caller, request).await?;
                (answer.lease, answer.impact)
            }
            Verb::Release => {
                let outcome = pb::Outcome::Abandoned.into();
                let request = pb::ReleaseRequest { lease_id, outcome, note: reason, ..pb::ReleaseRequest::default() };
                (self.inside.release(self.caller, request).await?.lease, None)
            }
            _ => return Err(no_verb()),
        };
        Ok(Answered { revision: lease.map_or(0, |lease| lease.revision), impact })
    }
}

impl Order {
    /// The fields `validate_only` and `if_revision` of a request.
    fn fields(self) -> (bool, u64) {
        match self {
            Self::Now => (false, 0),
            Self::IfSeen(revision) => (false, revision),
            Self::Validate => (true, 0),
        }
    }
}

fn no_impact() -> InsideError {
    let message = "the server did not say what the verb would end".to_owned();
    InsideError { kind: RefusalKind::Internal, reason: String::new(), message }
}

fn no_verb() -> InsideError {
    let message = "the page has no such verb".to_owned();
    InsideError { kind: RefusalKind::Internal, reason: String::new(), message }
}
