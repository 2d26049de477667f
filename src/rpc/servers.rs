//! The servers on one database: each reports itself every few seconds, and each lists all.

#[cfg(any(feature = "postgres", test))]
use crate::engine::Handle;
use crate::pb;
use crate::rpc::about;
#[cfg(any(feature = "postgres", test))]
use crate::rpc::configuration::ConfigurationStatus;
use crate::rpc::context::Context;
use crate::rpc::status::RpcError;
use crate::store::SeenServer;
#[cfg(any(feature = "postgres", test))]
use crate::store::ServerReport;
#[cfg(any(feature = "postgres", test))]
use std::time::SystemTime;
use std::time::{Duration, UNIX_EPOCH};

/// Time between two reports of a server.
#[cfg(feature = "postgres")]
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes the report of this server every few seconds, and at once when it comes to lead or to follow.
#[cfg(feature = "postgres")]
pub async fn report(handle: Handle, configuration: ConfigurationStatus, address: String) {
    let mut leadership = handle.leadership().watch();
    let mut failed = false;
    loop {
        leadership.mark_unchanged();
        let stored = handle.report_self(&of_this(&handle, &configuration, &address)).await;
        if let Err(error) = &stored
            && !failed
        {
            tracing::warn!(%error, "the report of this server is not stored; trying again");
        }
        failed = stored.is_err();
        // A lead that comes and goes is reported at most once a second.
        tokio::time::sleep(INTERVAL / 5).await;
        let _ = tokio::time::timeout(INTERVAL - INTERVAL / 5, leadership.changed()).await;
    }
}

#[cfg(any(feature = "postgres", test))]
fn of_this(handle: &Handle, configuration: &ConfigurationStatus, address: &str) -> ServerReport {
    let leadership = handle.leadership();
    let lead = leadership.lead_facts();
    ServerReport {
        address: address.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        configuration: configuration.digest(),
        refused_since_unix_ms: configuration.problem().map(|refused| unix_ms(refused.since)),
        leads_since_unix_ms: lead.map(|lead| unix_ms(lead.since)),
        epoch: lead.map_or(0, |lead| lead.epoch),
        revision: handle.hub().revision().borrow().0,
        age_ms: leadership.age().map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
    }
}

#[cfg(any(feature = "postgres", test))]
fn unix_ms(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The answer of `ListServers`.
pub(crate) async fn list(context: &Context) -> Result<pb::ListServersResponse, RpcError> {
    let servers: Vec<pb::Server> = context.servers().await?.into_iter().map(server).collect();
    if !servers.is_empty() {
        return Ok(pb::ListServersResponse { servers });
    }
    let this = about::server(context);
    let alone = pb::Server {
        address: String::new(),
        leads: this.leads,
        leads_since: this.leads_since,
        epoch: this.epoch,
        revision: this.revision,
        age: this.age,
        version: this.version,
        configuration: this.configuration,
        configuration_refused_since: this.configuration_refused_since,
        silent: Some(prost_types::Duration::default()),
    };
    Ok(pb::ListServersResponse { servers: vec![alone] })
}

fn server(seen: SeenServer) -> pb::Server {
    let SeenServer { report, silent } = seen;
    let time = |ms: i64| prost_types::Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms.max(0).unsigned_abs()));
    let span = |time: Duration| prost_types::Duration::try_from(time).ok();
    pb::Server {
        address: report.address,
        leads: report.leads_since_unix_ms.is_some(),
        leads_since: report.leads_since_unix_ms.map(time),
        epoch: report.epoch,
        revision: report.revision,
        age: report.age_ms.and_then(|ms| span(Duration::from_millis(ms.max(0).unsigned_abs()))),
        version: report.version,
        configuration: report.configuration,
        configuration_refused_since: report.refused_since_unix_ms.map(time),
        silent: span(silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientOptions};
    use crate::rpc::RpcLimits;
    use crate::rpc::testing::{broker, follower};

    async fn listed(address: std::net::SocketAddr) -> Vec<pb::Server> {
        let client = Client::connect_with(&address.to_string(), ClientOptions::default()).await.unwrap();
        client.servers().await.unwrap()
    }

    #[tokio::test]
    async fn each_server_lists_all_that_report_and_one_without_reports_lists_itself() {
        let broker = broker(1, 1).await;
        let alone = listed(broker.server.address).await;
        assert_eq!((alone.len(), alone[0].leads, &*alone[0].address), (1, true, ""), "{alone:?}");
        let (server, follows) = follower(&broker, RpcLimits::default()).await;
        let configuration = ConfigurationStatus::default();
        configuration.taken("aa", crate::links::Links::default());
        for (handle, address) in [(&broker.handle, "http://a:1"), (&follows.handle, "http://b:1")] {
            handle.report_self(&of_this(handle, &configuration, address)).await.unwrap();
        }
        for address in [broker.server.address, server.address] {
            let all = listed(address).await;
            let short: Vec<(&str, bool, &str)> =
                all.iter().map(|one| (&*one.address, one.leads, &*one.configuration)).collect();
            assert_eq!(short.len(), 2, "{all:?}");
            assert_eq!((short[0].0, short[1].0), ("http://a:1", "http://b:1"));
            assert!(!short[1].1 && short[1].2 == "aa" && all[1].silent.is_some(), "{all:?}");
        }
    }
}
