//! Pages of the queue, read in short steps, so that no read holds the engine up.

use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert::{self, QueueListing};
use crate::rpc::status::RpcError;
use crate::rpc::validate::Problem;
use wharfinger_core::{QueueClass, QueuePage, QueuePlace, Revision, Scope, View};

/// Reads a page.
pub(crate) async fn page(
    context: &Context,
    scope: &Scope,
    asked: QueueListing,
) -> Result<pb::ListQueueResponse, RpcError> {
    let mut from = begin(context, scope, &asked).await?;
    let mut told = pb::ListQueueResponse::default();
    let mut last: Option<QueueClass> = None;
    loop {
        let (pool, room) = (asked.pool.clone(), asked.size - told.requests.len());
        let read = move |view: View<'_>, now| (view.queue(pool.as_deref(), from.as_ref(), room, now), view.revision());
        let (page, Revision(revision)) = context.read(scope, read).await?;
        if told.revision == 0 {
            told.revision = revision;
        }
        let clock = context.reading();
        let QueuePage { classes, rows, next } = page;
        // The first class may go on from the read before.
        let first = match (&last, classes.first()) {
            (Some(last), Some(first)) if last.same_as(first) => told.classes.len() - 1,
            _ => told.classes.len(),
        };
        told.classes.truncate(first);
        told.classes.extend(classes.iter().map(convert::queue_class));
        told.requests.extend(rows.iter().map(|row| convert::queued_request(row, first + row.class, scope, clock)));
        last = classes.last().cloned().or(last);
        if next.is_none() {
            return Ok(told);
        }
        if told.requests.len() >= asked.size {
            let end = told.requests.last().and_then(|request| request.lease.as_ref());
            told.next_page_token = end.map(|lease| lease.id.clone()).unwrap_or_default();
            return Ok(told);
        }
        from = next;
    }
}

/// The place after which the page begins. `None`: it is the first page.
async fn begin(context: &Context, scope: &Scope, asked: &QueueListing) -> Result<Option<QueuePlace>, RpcError> {
    let (pool, after) = (asked.pool.clone(), asked.after);
    let read = move |view: View<'_>, _now| {
        let known = pool.is_none_or(|pool| view.has_pool(&pool));
        (known, after.map(|id| view.queue_place(id)))
    };
    let (known, place) = context.read(scope, read).await?;
    if let Some(pool) = asked.pool.as_ref().filter(|_| !known) {
        return Err(RpcError::no_pool(pool));
    }
    match place {
        None => Ok(None),
        Some(Some(place)) => Ok(Some(place)),
        Some(None) => {
            let description = "the lease at which the page before ended is no longer kept: list from the first page";
            Err(RpcError::Invalid(vec![Problem { field: "page_token".into(), description: description.into() }]))
        }
    }
}
