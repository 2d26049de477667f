//! The broker's hosts, for the ec2 adapter: it ends instances without an owner, and must know the others.

use crate::engine::Handle;
use crate::pb;
use async_trait::async_trait;
use wharfinger_adapter::{Failure, Notice};
use wharfinger_core::Stage;
use wharfinger_ec2::{Accounts, Broker, Phase, Row};

/// The hosts in the rows of the core.
pub(super) struct Inventory(pub(crate) Handle);

#[async_trait]
impl Broker for Inventory {
    async fn rows(&self) -> Result<Vec<Row>, Failure> {
        let asked = self.0.read(|core, _| {
            let rows = core.resources(None).filter(|row| row.parent.is_none()).filter_map(|row| {
                let phase = match row.state.stage() {
                    Stage::Coming => Phase::Making,
                    Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Draining => Phase::Serving,
                    Stage::Leaving => Phase::Leaving,
                    Stage::Gone => return None,
                };
                Some(Row {
                    pool: row.pool.to_string(),
                    resource: row.id.to_string(),
                    handle: row.handle.as_deref().map(String::from),
                    phase,
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

/// Statistics of launches by region, zone and instance type.
pub(super) fn spot_stats(accounts: &Accounts) -> Vec<pb::WeatherLine> {
    let span = |span: std::time::Duration| prost_types::Duration::try_from(span).ok();
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let line = |region: &str, told: wharfinger_ec2::MarketReport| pb::WeatherLine {
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
    let accounts = accounts.all();
    accounts
        .iter()
        .flat_map(|account| account.market_stats().into_iter().map(|told| line(account.region(), told)))
        .collect()
}
