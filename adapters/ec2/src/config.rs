//! What a pool of kind `ec2` says in the configuration.

use crate::cloud::{Place, Template, TemplateSpec};
use crate::tags;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Settings of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name by which this broker knows its own instances, as a tag on each. No two brokers of an account and region may
    /// have the same: what carries it and is in nobody's books is terminated.
    pub deployment: String,
    /// AWS region.
    pub region: String,
    /// How instances are bought.
    #[serde(default)]
    pub market: Market,
    /// AMI id, or `resolve:ssm:` and the name of an SSM parameter that holds one. May be left out with a launch template.
    #[serde(default)]
    pub image: String,
    /// Id (`lt-…`) or name of a launch template with what this file does not say. Without one the broker makes its own for
    /// fleets, named after the pool.
    #[serde(default)]
    pub launch_template: Option<String>,
    /// Which version of it.
    #[serde(default = "default_version")]
    pub launch_template_version: String,
    /// Instance types that will do. Ten or more are interrupted least.
    pub types: Vec<String>,
    /// The subnet of each availability zone that will do.
    pub subnets: BTreeMap<String, String>,
    /// Security group ids; the broker must get through to the SSH port.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Name of the instance profile, if the hosts need one.
    #[serde(default)]
    pub instance_profile: Option<String>,
    /// Size of the root volume in GiB, if not the image's.
    #[serde(default)]
    pub root_volume_gb: Option<u32>,
    /// Device name of the root volume, as the image has it.
    #[serde(default = "default_root_device")]
    pub root_device: String,
    /// Further tags of instances and volumes.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Shell commands that the first boot runs as root, after the users are there.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Which address the broker and the holders use.
    #[serde(default)]
    pub address: Address,
    /// URL of the SQS queue that EventBridge fills; without it notices come from the hosts and from the API alone.
    #[serde(default)]
    pub queue: Option<String>,
    /// How hosts are reached and watched: as in a pool of kind `ssh`, without hosts. `user` and `key` are needed.
    pub ssh: wharfinger_ssh::Config,
    /// An instance that no broker has spoken to for so long powers itself off (and is terminated by it), in minutes; at
    /// least 10. `0`: never.
    #[serde(default = "default_backstop_minutes")]
    pub backstop_minutes: u32,
    /// From the launch to a host that is proved, in milliseconds; then another one is tried.
    #[serde(default = "default_launch_timeout_ms")]
    pub launch_timeout_ms: u64,
    /// After an interruption or a want of capacity a type is not bought in that zone for so long, in milliseconds.
    #[serde(default = "default_cool_ms")]
    pub cool_ms: u64,
    /// From one list of all instances to the next, in milliseconds.
    #[serde(default = "default_reconcile_ms")]
    pub reconcile_ms: u64,
    /// From one look at scheduled events and failed status checks to the next, in milliseconds.
    #[serde(default = "default_status_ms")]
    pub status_ms: u64,
    /// While hosts boot: from one look at them to the next, in milliseconds.
    #[serde(default = "default_boot_poll_ms")]
    pub boot_poll_ms: u64,
    /// Instances in nobody's books are only told in the log, not terminated.
    #[serde(default)]
    pub orphans_dry_run: bool,
    /// Never more than this part of all instances is terminated as nobody's at once, in per cent; three may always be.
    #[serde(default = "default_orphans_share")]
    pub orphans_share: u32,
    /// Base URL of all AWS services, for endpoints of one's own.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Base URL of the instance metadata service, as hosts see it.
    #[serde(default = "default_imds")]
    pub imds: String,
}

/// How instances are bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Market {
    /// Spot; on demand while no spot capacity is to be had.
    #[default]
    SpotFirst,
    /// Spot, or wait.
    SpotOnly,
    /// On demand.
    OnDemand,
}

/// Which address of an instance is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// In the VPC.
    #[default]
    Private,
    /// On the Internet.
    Public,
}

fn default_version() -> String {
    "$Default".to_string()
}

fn default_root_device() -> String {
    "/dev/xvda".to_string()
}

fn default_backstop_minutes() -> u32 {
    360
}

fn default_launch_timeout_ms() -> u64 {
    600_000
}

fn default_cool_ms() -> u64 {
    180_000
}

fn default_reconcile_ms() -> u64 {
    15_000
}

fn default_status_ms() -> u64 {
    60_000
}

fn default_boot_poll_ms() -> u64 {
    2000
}

fn default_orphans_share() -> u32 {
    20
}

fn default_imds() -> String {
    "http://169.254.169.254".to_string()
}

impl Config {
    /// Every type in every zone, types first, as the file has them.
    pub(crate) fn places(&self) -> Vec<Place> {
        let in_zones = |instance_type: &String| {
            let place = |(zone, subnet): (&String, &String)| Place {
                instance_type: instance_type.clone(),
                zone: zone.clone(),
                subnet: subnet.clone(),
            };
            self.subnets.iter().map(place).collect::<Vec<_>>()
        };
        self.types.iter().flat_map(in_zones).collect()
    }

    /// The launch template that the file names.
    pub(crate) fn template(&self) -> Option<Template> {
        let name = self.launch_template.clone()?;
        Some(Template { name, version: self.launch_template_version.clone() })
    }

    /// What fleets of this pool are launched from, if the file names no template.
    pub(crate) fn template_spec(&self, pool: &str) -> TemplateSpec {
        let tags = self
            .tags
            .clone()
            .into_iter()
            .chain([
                (tags::DEPLOYMENT.to_string(), self.deployment.clone()),
                (tags::POOL.to_string(), pool.to_string()),
            ])
            .collect();
        let mut spec = TemplateSpec {
            name: String::new(),
            security_groups: self.security_groups.clone(),
            instance_profile: self.instance_profile.clone(),
            root_volume: self.root_volume_gb.map(|size| (self.root_device.clone(), size)),
            tags,
        };
        spec.name = format!("wharfinger-{:016x}", fnv1a(format!("{spec:?}").as_bytes()));
        spec
    }
}

/// A hash that is the same in every build: the template's name must be.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) const GOOD: &str = r#"
        deployment = "ci"
        region = "us-east-1"
        image = "ami-1"
        types = ["m7i.large", "m6i.large"]
        subnets = { us-east-1a = "subnet-a", us-east-1b = "subnet-b" }
        ssh = { user = "build", key = "/nowhere/key" }
    "#;
}
