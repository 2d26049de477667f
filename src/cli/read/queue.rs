//! `queue`: the requests that wait, in the order of service.

use super::dash;
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::json::Json;
use crate::cli::paging::{page_size, warn_of_more};
use crate::cli::text;
use crate::likely;
use crate::pb;
use clap::Args;

/// Arguments of `queue`.
#[derive(Args, Debug)]
pub(crate) struct QueueArgs {
    /// Only requests that this pool could serve
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Maximum number of requests
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// Runs `queue`.
pub(crate) async fn queue(context: &Context, args: QueueArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let pool = args.pool.unwrap_or_default();
    let mut request = pb::ListQueueRequest { pool: pool.clone(), ..pb::ListQueueRequest::default() };
    let (mut told, mut more) = (pb::ListQueueResponse::default(), false);
    while told.requests.len() < args.limit {
        request.page_size = page_size(args.limit, told.requests.len());
        let page = client.list_queue(request.clone()).await.map_err(|error| context.failure(error))?;
        more = !page.next_page_token.is_empty();
        request.page_token.clone_from(&page.next_page_token);
        join(&mut told, page);
        if !more {
            break;
        }
    }
    let ui = context.ui;
    if ui.json {
        ui.document(&told.json())?;
        return Ok(Exit::Ok);
    }
    let mut table = ui.table(&["PLACE", "OF", "WANTS", "LEASE", "WAITS", "PRIORITY", "LIKELY START", "HOLDER", "WORK"]);
    for request in &told.requests {
        let class = usize::try_from(request.class_index).ok().and_then(|n| told.classes.get(n)).cloned();
        let class = class.unwrap_or_default();
        let lease = request.lease.clone().unwrap_or_default();
        let start = match &request.likely_start {
            Some(start) => likely::range(start),
            None => likely::unknown(&request.no_likely_start).into_owned(),
        };
        table.add_row(vec![
            request.position.to_string(),
            class.requests.to_string(),
            text::one_line(&class.wants),
            lease.id.clone(),
            text::ago(lease.created_at.as_ref()),
            lease.priority.to_string(),
            text::one_line(&start),
            text::one_line(&lease.holder),
            dash(&text::one_line(&lease.work)).to_owned(),
        ]);
    }
    ui.print(table, "no request waits")?;
    warn_of_more(context, more, args.limit);
    if let Some(link) = context.link(&client, |page| page.queue(&pool)).await {
        ui.out(&format!("on the page: {link}"))?;
    }
    Ok(Exit::Ok)
}

/// Adds a page. A class that goes on from the page before is there once.
fn join(told: &mut pb::ListQueueResponse, page: pb::ListQueueResponse) {
    let goes_on = match (told.classes.last(), page.classes.first()) {
        (Some(last), Some(first)) => last.wants == first.wants,
        _ => false,
    };
    let before = told.classes.len() - usize::from(goes_on);
    told.classes.truncate(before);
    told.classes.extend(page.classes);
    let before = i32::try_from(before).unwrap_or(i32::MAX);
    told.requests.extend(
        page.requests
            .into_iter()
            .map(|request| pb::QueuedRequest { class_index: request.class_index.saturating_add(before), ..request }),
    );
    if told.revision == 0 {
        told.revision = page.revision;
    }
    told.next_page_token = page.next_page_token;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_and_a_class_that_goes_on_is_there_once() {
        let page = |wants: &[&str], of: &[i32]| pb::ListQueueResponse {
            classes: wants
                .iter()
                .map(|wants| pb::QueueClass { wants: (*wants).into(), ..pb::QueueClass::default() })
                .collect(),
            requests: of
                .iter()
                .map(|class| pb::QueuedRequest { class_index: *class, ..pb::QueuedRequest::default() })
                .collect(),
            ..pb::ListQueueResponse::default()
        };
        let mut told = pb::ListQueueResponse::default();
        for next in [page(&["a", "b"], &[0, 1]), page(&["b", "c"], &[0, 0, 1]), page(&[], &[]), page(&["d"], &[0])] {
            join(&mut told, next);
        }
        let names: Vec<&str> = told.classes.iter().map(|class| &*class.wants).collect();
        let of: Vec<i32> = told.requests.iter().map(|request| request.class_index).collect();
        assert_eq!((names, of), (vec!["a", "b", "c", "d"], vec![0, 1, 1, 1, 2, 3]));
    }
}
