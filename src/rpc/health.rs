//! The health service: whether anything can be asked here, and whether this server leads.

use crate::engine::{Handle, Role};
use crate::pb::admin_service_server::AdminServiceServer;
use crate::pb::lease_service_server::LeaseServiceServer;
use crate::rpc::admin::AdminApi;
use crate::rpc::lease::LeaseApi;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How often one that follows looks whether what it knows is too old.
const LOOK: Duration = Duration::from_millis(250);

/// SERVING on the server that leads and on no other.
pub(crate) const LEADER: &str = "wharfinger.leader";

/// SERVING while the clock of this server is right.
pub(crate) const CLOCK: &str = "wharfinger.clock";

/// Names that say whether anything can be asked; the empty one is the whole server.
pub(crate) const SERVICES: [&str; 3] =
    ["", <LeaseServiceServer<LeaseApi> as NamedService>::NAME, <AdminServiceServer<AdminApi> as NamedService>::NAME];

/// Says how it is, and each change of that.
pub(crate) struct Health {
    reporter: HealthReporter,
    handle: Handle,
    said: Option<(bool, bool, bool)>,
}

impl Health {
    pub(crate) async fn new(reporter: HealthReporter, handle: Handle) -> Self {
        let mut health = Health { reporter, handle, said: None };
        health.say().await;
        health
    }

    async fn say(&mut self) {
        let leadership = self.handle.leadership();
        let leads = leadership.role() == Role::Leading;
        let now = (leadership.fresh().is_ok(), leads, self.handle.clock_warnings().is_empty());
        if self.said.replace(now) == Some(now) {
            return;
        }
        for name in SERVICES {
            self.reporter.set_service_status(name, status(now.0)).await;
        }
        self.reporter.set_service_status(LEADER, status(leads)).await;
        self.reporter.set_service_status(CLOCK, status(now.2)).await;
    }

    /// Until the stop. Then it says NOT_SERVING, and ends the health service's own watches: they would hold the stop up.
    /// (They see the last word first.)
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut stand = self.handle.leadership().watch();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = stand.changed() => if changed.is_err() { stop.cancelled().await },
                () = tokio::time::sleep(LOOK) => {}
            }
            self.say().await;
        }
        for name in SERVICES.into_iter().chain([LEADER, CLOCK]) {
            self.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
        for name in SERVICES.into_iter().chain([LEADER, CLOCK]) {
            self.reporter.clear_service_status(name).await;
        }
    }
}

fn status(good: bool) -> ServingStatus {
    if good { ServingStatus::Serving } else { ServingStatus::NotServing }
}
