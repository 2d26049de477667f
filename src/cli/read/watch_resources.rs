//! `resources --watch`: a line for each change, over restarts of the server.

use super::resources::why_and_note;
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::json::Json;
use crate::cli::run::signals::Signals;
use crate::cli::text;
use crate::client::internal::backoff::Backoff;
use crate::client::{Client, ClientError};
use crate::pb;
use pb::watch_resources_response::Event;
use serde_json::json;
use std::time::Duration;

/// Maximum silence of the server: its bookmarks come every five seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// The end of one stream.
enum End {
    /// Nothing can be printed.
    Failed(Failure),
    /// The server refused it, or ended it.
    Refused(ClientError),
    /// It is silent, or was cut.
    Lost,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        End::Failed(failure)
    }
}

/// Prints changes until a signal comes, or until the server refuses.
pub(super) async fn watch(context: &Context, request: pb::WatchResourcesRequest) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let client = context.connect_patient().await?;
    let mut stream =
        Stream { context, client, request, backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)) };
    loop {
        let end = tokio::select! {
            end = stream.follow() => end,
            signal = signals.recv() => return Ok(Exit::Command(128 + signal.number())),
        };
        let asked = match end {
            End::Failed(failure) => return Err(failure),
            End::Refused(ClientError::Resync(_)) => {
                stream.resync()?;
                None
            }
            End::Refused(error @ (ClientError::Unavailable(_) | ClientError::Capacity(_))) => error.retry_after(),
            End::Refused(error) => return Err(context.failure(error)),
            End::Lost => None,
        };
        let wait = stream.backoff.wait(asked);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            signal = signals.recv() => return Ok(Exit::Command(128 + signal.number())),
        }
    }
}

struct Stream<'c> {
    context: &'c Context,
    client: Client,
    /// Its revision is that up to which everything was printed.
    request: pb::WatchResourcesRequest,
    backoff: Backoff,
}

impl Stream<'_> {
    /// Prints one stream until it ends.
    async fn follow(&mut self) -> End {
        match self.print_all().await {
            Ok(()) => End::Lost,
            Err(end) => end,
        }
    }

    async fn print_all(&mut self) -> Result<(), End> {
        let refused = |status: tonic::Status| End::Refused(status.into());
        let answer = self.client.admin().watch_resources(self.request.clone()).await;
        let mut messages = answer.map_err(refused)?.into_inner();
        loop {
            let Ok(message) = tokio::time::timeout(SILENCE, messages.message()).await else { return Ok(()) };
            let Some(message) = message.map_err(refused)? else { return Ok(()) };
            self.backoff.reset();
            self.request.from_revision = self.request.from_revision.max(message.revision);
            if let Some(event) = message.event {
                self.print(&event)?;
            }
        }
    }

    fn print(&self, event: &Event) -> Result<(), Failure> {
        let (ui, revision) = (self.context.ui, self.request.from_revision);
        match event {
            Event::Resource(resource) if ui.json => {
                ui.record(&json!({ "revision": resource.revision, "resource": resource.json() }))
            }
            Event::Pool(pool) if ui.json => ui.record(&json!({ "revision": revision, "pool": pool.json() })),
            Event::Bookmark(mark) if ui.json => match mark.synced {
                true => ui.record(&json!({ "revision": revision, "synced": true })),
                false => ui.record(&json!({ "revision": revision })),
            },
            Event::Resource(resource) => {
                let state = ui.state_text(text::resource_state(resource));
                ui.out(&format!("{} {} {state} {}", text::clock_now(), resource.id, line(resource)))
            }
            Event::Pool(pool) => ui.out(&format!("{} pool {}", text::clock_now(), pool_line(pool))),
            Event::Bookmark(_) => Ok(()),
        }
    }

    /// The server keeps no changes from so long ago: the current state follows.
    fn resync(&mut self) -> Result<(), Failure> {
        self.request.from_revision = 0;
        if self.context.ui.json {
            return self.context.ui.record(&json!({ "resync": true }));
        }
        self.context.ui.warn("the changes meanwhile are no longer kept; the current state follows");
        Ok(())
    }
}

/// A resource behind its state: `linux/b3 1/2  cordoned by ann: disk`.
fn line(resource: &pb::Resource) -> String {
    let name = match resource.item.is_empty() {
        true => resource.pool.clone(),
        false => format!("{}/{}", resource.pool, text::one_line(&resource.item)),
    };
    let why = why_and_note(resource);
    let why = if why.is_empty() { why } else { format!("  {why}") };
    format!("{name} {}/{}{why}", resource.slots_in_use, resource.slots)
}

/// A pool on one line: `linux: 3 free slots, 2 leases, 1 waiting; cordoned by ann`.
fn pool_line(pool: &pb::Pool) -> String {
    let name = text::one_line(&pool.name);
    if !pool.configured && pool.resources.is_empty() {
        return format!("{name}: removed");
    }
    let counts = format!("{} free slots, {} leases, {} waiting", pool.free_slots, pool.leases, pool.waiting);
    let cordoned =
        if pool.cordoned { format!("; cordoned by {}", text::one_line(&pool.cordoned_by)) } else { String::new() };
    let trouble = if pool.trouble.is_empty() { String::new() } else { format!("; {}", text::one_line(&pool.trouble)) };
    format!("{name}: {counts}{cordoned}{trouble}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let note = pb::Note { by: "ann".into(), text: "loud\nfan".into(), at: None };
        let mut resource = pb::Resource { pool: "linux".into(), slots: 2, ..pb::Resource::default() };
        assert_eq!(line(&resource), "linux 0/2");
        (resource.item, resource.slots_in_use, resource.note) = ("b3".into(), 1, Some(note));
        assert_eq!(line(&resource), "linux/b3 1/2  note of ann at -: loud fan");
        let pool = pb::Pool { name: "linux".into(), configured: true, free_slots: 3, leases: 2, ..pb::Pool::default() };
        assert_eq!(pool_line(&pool), "linux: 3 free slots, 2 leases, 0 waiting");
        let cordoned = pb::Pool { cordoned: true, cordoned_by: "ann".into(), trouble: "no room".into(), ..pool };
        assert_eq!(pool_line(&cordoned), "linux: 3 free slots, 2 leases, 0 waiting; cordoned by ann; no room");
        assert_eq!(pool_line(&pb::Pool { name: "old".into(), ..pb::Pool::default() }), "old: removed");
    }
}
