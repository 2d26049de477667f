//! Pools with `adapter = "ec2"`: instances that are bought when a request waits, and ended when they are idle.

use super::ec2_inventory::Inventory;
use super::{AdapterConfig, Finding, Health, Kind, LiveAdapter, Settings, Shared, same, ssh};
use crate::engine::Handle;
use crate::rpc::PoolCredentials;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, fields};
use wharfinger_adapter::{Adapter, Failure};
use wharfinger_core::Traits;
use wharfinger_ec2::{Config, Ec2Adapter, doctor};
use wharfinger_host::containment::Containment;

pub(crate) struct Ec2;

impl Kind for Ec2 {
    fn name(&self) -> &'static str {
        "ec2"
    }

    fn defaults(&self) -> PoolDefaults {
        wharfinger_ec2::defaults()
    }

    fn tables(&self) -> Vec<(&'static str, &'static [&'static str])> {
        vec![
            ("[pool.ec2]", fields::<Config>()),
            ("[pool.ec2.ssh]", fields::<wharfinger_ssh::Config>()),
            ("[pool.ec2.ssh.ca]", fields::<wharfinger_ssh::Authority>()),
        ]
    }

    fn read(&self, table: Option<&Value>, scope: &Scope, folder: &Path) -> Result<AdapterConfig, Vec<ConfigProblem>> {
        Config::read(table, scope, folder).map(|config| AdapterConfig::new(self, config))
    }
}

impl Settings for Config {
    fn traits(&self) -> Traits {
        Config::TRAITS
    }

    fn credentials(&self) -> PoolCredentials {
        ssh::holders(&self.ssh)
    }

    fn contained(&self, containment: Containment) -> Option<AdapterConfig> {
        Some(AdapterConfig::new(
            &Ec2,
            Config { ssh: wharfinger_ssh::Config { containment, ..self.ssh.clone() }, ..self.clone() },
        ))
    }

    fn make(&self, pool: &str, shared: &Shared) -> Result<Arc<dyn LiveAdapter>, Failure> {
        Ok(Arc::new(Live(Arc::new(Ec2Adapter::new(pool.into(), self.clone(), &shared.accounts)?))))
    }

    fn examine<'a>(&'a self, pool: &'a str, shared: &'a Shared) -> Option<BoxFuture<'a, Vec<Finding>>> {
        Some(shared.accounts.examine(pool, self).map(|found| found.into_iter().map(finding).collect()).boxed())
    }

    fn host_setup(&self, pool: &str, slots: u32, undo: bool) -> Option<Result<String, String>> {
        ssh::host_setup(&self.ssh, pool, slots, undo)
    }

    fn has_holders_apart(&self) -> bool {
        self.ssh.has_holders_apart()
    }

    fn equals(&self, other: &dyn Settings) -> bool {
        same(self, other)
    }
}

fn finding(found: doctor::Finding) -> Finding {
    let health = match found.health {
        doctor::Health::Good => Health::Good,
        doctor::Health::Bad => Health::Bad,
        doctor::Health::Minor => Health::Minor,
        doctor::Health::Untried => Health::Untried,
    };
    Finding { what: found.what, health, text: found.text }
}

/// An adapter that distinguishes instances of the broker from those without an owner.
struct Live(Arc<Ec2Adapter>);

impl LiveAdapter for Live {
    fn adapter(&self) -> Arc<dyn Adapter> {
        self.0.clone()
    }

    fn attend(&self, handle: &Handle) {
        self.0.attend(Arc::new(Inventory(handle.clone())));
    }
}
