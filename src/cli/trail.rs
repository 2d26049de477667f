//! `events`: the audit trail, once or as it grows.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::{self, Json};
use super::paging::page_size;
use super::select::time;
use super::{text, verify_trail};
use crate::client::{ClientError, Endpoints};
use crate::pb;
use crate::pb::admin_service_client::AdminServiceClient;
use clap::Args;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// From one question for new entries to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The same while no server answers.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Entries of one page while it follows.
const PAGE: i32 = 500;

/// Arguments of `events`.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Only of this pool
    #[arg(long, short, value_name = "POOL", default_value = "")]
    pool: String,
    /// Only of this resource and the leases on it
    #[arg(long, value_name = "RESOURCE", default_value = "")]
    resource: String,
    /// Only of this lease
    #[arg(long, value_name = "LEASE", default_value = "")]
    lease: String,
    /// Only by this principal or proof, as in token:ci-7 or x509:spiffe://farm/agent
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only after this revision, oldest first; without it, the newest
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// Maximum number of entries
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print entries as they are written, a line each, from --after or the cursor or now on
    #[arg(long, short, conflicts_with = "limit")]
    follow: bool,
    /// File with the revision up to which entries were printed: --follow resumes there, and prints each at least once
    #[arg(long, value_name = "FILE", requires = "follow")]
    cursor: Option<PathBuf>,
    /// Compare the lines of a whole export (--follow --json) with the trail; exit code 65 if an entry is missing, changed or added
    #[arg(long, value_name = "EXPORT", conflicts_with_all = ["follow", "pool", "resource", "lease", "by", "after", "limit"])]
    verify: Option<PathBuf>,
    /// Age from which the trail may have deleted entries: [limits] events
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "90d", requires = "verify")]
    kept: Duration,
}

impl EventsArgs {
    fn request(&self) -> pb::EventsRequest {
        pb::EventsRequest {
            pool: self.pool.clone(),
            resource_id: self.resource.clone(),
            lease_id: self.lease.clone(),
            after_revision: self.after.unwrap_or_default(),
            newest_first: self.after.is_none(),
            ..pb::EventsRequest::default()
        }
    }

    fn wants(&self, event: &pb::Event) -> bool {
        self.by.as_deref().is_none_or(|name| is_by(event, name))
    }
}

/// Whether the principal or the proof of an entry has this name. The serial number of a certificate may be left out.
fn is_by(event: &pb::Event, name: &str) -> bool {
    let proof = event.caller.as_ref().map(|caller| caller.proof.as_str()).unwrap_or_default();
    let plain = proof.split_once('#').map(|(proof, _)| proof);
    !name.is_empty() && [Some(event.actor.as_str()), Some(proof), plain].contains(&Some(name))
}

/// Prints the trail.
pub(crate) async fn events(context: &Context, args: EventsArgs) -> Result<Exit, Failure> {
    if let Some(export) = &args.verify {
        return verify_trail::verify(context, export, args.kept).await;
    }
    if args.follow {
        return follow(context, &args).await;
    }
    let mut admin = context.connect().await?.admin();
    let mut request = args.request();
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut events = Vec::new();
    while events.len() < limit {
        request.page_size = if args.by.is_some() { PAGE } else { page_size(limit, events.len()) };
        let page = context.ask(admin.events(request.clone())).await?;
        events.extend(page.events.into_iter().filter(|event| args.wants(event)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    events.truncate(limit);
    if args.after.is_none() {
        // The server returns the newest first; the oldest are printed first.
        events.reverse();
    }
    if context.ui.json {
        context.ui.document(&json::listed("events", &events, None))?;
    } else {
        print_events(context, &events)?;
    }
    Ok(Exit::Ok)
}

/// Prints entries as they are written. A server that does not answer is asked again; the cursor counts whole revisions.
async fn follow(context: &Context, args: &EventsArgs) -> Result<Exit, Failure> {
    let client = context.connect_patient().await?;
    let mut admin = client.admin();
    let stored = args.cursor.as_deref().map(read_cursor).transpose()?.flatten();
    let mut after = match stored.or(args.after) {
        Some(after) => after,
        None => context.ask(admin.events(newest())).await?.revision,
    };
    let mut said = false;
    loop {
        match page_after(&mut admin, args, after).await {
            Ok(page) => {
                said = false;
                for event in page.events.iter().filter(|event| args.wants(event)) {
                    print_line(context, event)?;
                }
                if page.revision > after {
                    after = page.revision;
                    if let Some(path) = &args.cursor {
                        write_cursor(path, after)?;
                    }
                }
            }
            Err(status) => {
                let error = ClientError::from(status);
                if !error.is_unavailable() {
                    return Err(context.failure(error));
                }
                if !std::mem::replace(&mut said, true) {
                    context
                        .ui
                        .warn(&format!("no server answers; entries after revision {after} follow later: {error}"));
                }
                tokio::time::sleep(TRY_AGAIN).await;
                continue;
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The answer to this has the present revision.
fn newest() -> pb::EventsRequest {
    pb::EventsRequest { newest_first: true, page_size: 1, ..pb::EventsRequest::default() }
}

/// All entries after a revision, with the revision up to which they are complete.
async fn page_after(
    admin: &mut AdminServiceClient<Endpoints>,
    args: &EventsArgs,
    after: u64,
) -> Result<pb::EventsResponse, tonic::Status> {
    let request = args.request();
    let mut request = pb::EventsRequest {
        after_revision: after,
        newest_first: false,
        min_revision: after,
        page_size: PAGE,
        ..request
    };
    let mut all = pb::EventsResponse::default();
    loop {
        let page = admin.events(request.clone()).await?.into_inner();
        // That of the first page: entries that were written meanwhile come again.
        all.revision = if request.page_token.is_empty() { page.revision } else { all.revision };
        all.events.extend(page.events.into_iter().filter(|event| event.revision <= all.revision));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(all);
        }
    }
}

fn print_line(context: &Context, event: &pb::Event) -> Result<(), Failure> {
    if context.ui.json {
        return context.ui.record(&event.json());
    }
    let detail = text::one_line(&event.detail);
    let line = format!(
        "{} {} {} {} {} {detail}",
        event.revision,
        text::clock(event.at.as_ref()),
        event.kind,
        text::one_line(&event.subject),
        by(event)
    );
    context.ui.out(line.trim_end())
}

/// The principal of an entry, by which program, and from where it called.
fn by(event: &pb::Event) -> String {
    let actor = text::one_line(&event.actor);
    let Some(caller) = &event.caller else { return actor };
    let actor = match &*caller.program {
        "" => actor,
        program => format!("{actor} via {}", text::one_line(program)),
    };
    match (&*caller.peer, &*caller.via) {
        ("", "") => actor,
        (peer, "") => format!("{actor} ({peer})"),
        (peer, server) => format!("{actor} ({peer}, forwarded by {server})"),
    }
}

/// Prints entries as a table.
pub(crate) fn print_events(context: &Context, events: &[pb::Event]) -> Result<(), Failure> {
    let mut table = context.ui.table(&["REVISION", "AT", "WHAT", "SUBJECT", "BY", "DETAIL"]);
    for event in events {
        table.add_row(vec![
            event.revision.to_string(),
            text::clock(event.at.as_ref()),
            event.kind.clone(),
            event.subject.clone(),
            by(event),
            text::one_line(&event.detail),
        ]);
    }
    context.ui.print(table, "no events")
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::BadData, format!("the cursor {} {why}", path.display()))
}

/// The revision in a cursor. `None`: there is no file yet.
fn read_cursor(path: &Path) -> Result<Option<u64>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let remedy = "remove it to begin anew, or write the last revision that was stored elsewhere";
            let number = text.trim().parse().map_err(|_| wrong(path, "holds no revision").remedy(remedy))?;
            Ok(Some(number))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(path, format!("cannot be read: {error}"))),
    }
}

/// Replaces the cursor in one step.
fn write_cursor(path: &Path, revision: u64) -> Result<(), Failure> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let write = || {
        let mut file = std::fs::File::create(&aside)?;
        writeln!(file, "{revision}")?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|error| wrong(path, format!("cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_principal_and_by_proof() {
        let caller = pb::EventCaller { proof: "x509:spiffe://farm/a#0a1b".into(), ..pb::EventCaller::default() };
        let event = pb::Event { actor: "ann".into(), caller: Some(caller), ..pb::Event::default() };
        for (name, found) in [
            ("ann", true),
            ("x509:spiffe://farm/a", true),
            ("x509:spiffe://farm/a#0a1b", true),
            ("x509:spiffe://farm/a#0a1c", false),
            ("x509:spiffe://farm", false),
            ("", false),
        ] {
            assert_eq!(is_by(&event, name), found, "{name}");
        }
        assert!(!is_by(&pb::Event { actor: "x".into(), ..pb::Event::default() }, ""));
    }

    #[test]
    fn a_cursor_is_a_revision_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        assert_eq!(read_cursor(&path), Ok(None));
        write_cursor(&path, 17).unwrap();
        assert_eq!(read_cursor(&path), Ok(Some(17)));
        for wrong in ["", "x", "-1", "1 2", "99999999999999999999999"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(read_cursor(&path).is_err(), "{wrong:?}");
        }
    }
}
