//! What the broker knows of its hosts, for an adapter that must tell its own from nobody's.

use crate::engine::Handle;
use crate::pb;
use async_trait::async_trait;
use wharfinger_adapter::{Failure, Notice};
use wharfinger_core::ResourceState;
use wharfinger_ec2::{Broker, Clouds, Row, Standing};

/// The engine's books.
pub(crate) struct Books(pub(crate) Handle);

#[async_trait]
impl Broker for Books {
    async fn rows(&self) -> Result<Vec<Row>, Failure> {
        let asked = self.0.read(|core, _| {
            let rows = core.resources(None).filter(|row| row.parent.is_none()).filter_map(|row| {
                let standing = match row.state {
                    ResourceState::Provisioning { .. } => Standing::Making,
                    ResourceState::Ready
                    | ResourceState::Suspect { .. }
                    | ResourceState::Repairing { .. }
                    | ResourceState::Quarantined { .. }
                    | ResourceState::Draining { .. } => Standing::Serving,
                    ResourceState::Destroying { .. } | ResourceState::Orphaned { .. } => Standing::Leaving,
                    ResourceState::Gone { .. } => return None,
                };
                Some(Row {
                    pool: row.pool.to_string(),
                    resource: row.id.to_string(),
                    handle: row.handle.as_deref().map(String::from),
                    standing,
                })
            });
            rows.collect()
        });
        asked.await.map_err(|error| Failure::provider("BROKER_AWAY", error.to_string()))
    }

    async fn tell(&self, notice: Notice) -> Result<(), Failure> {
        self.0.notice(notice).await.map_err(|error| Failure::provider("BROKER_AWAY", error.to_string()))
    }
}

/// How it went with each type in each zone.
pub(crate) fn weather(clouds: &Clouds) -> Vec<pb::WeatherLine> {
    let span = |span: std::time::Duration| prost_types::Duration::try_from(span).ok();
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let line = |region: &str, told: wharfinger_ec2::Report| pb::WeatherLine {
        region: region.to_string(),
        zone: told.zone,
        instance_type: told.instance_type,
        market: if told.spot { pb::Market::Spot } else { pb::Market::OnDemand }.into(),
        launches: number(told.counts.launches),
        interruptions: number(told.counts.interruptions),
        capacity_errors: number(told.counts.capacity_errors),
        mean_life: told.counts.mean_life().and_then(span),
        resting: told.cool.and_then(span),
    };
    let hubs = clouds.hubs();
    hubs.iter().flat_map(|hub| hub.weather().into_iter().map(|told| line(hub.region(), told))).collect()
}
