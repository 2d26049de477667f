//! Settings of a pool of kind `ec2`.

use crate::cloud::{Place, Template, TemplateSpec};
use crate::tags;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use wharfinger_adapter::Failure;

/// Settings of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Tag by which this broker recognizes its instances. Each broker of an account and region needs its own: an instance with the tag
    /// that no resource owns is terminated.
    pub deployment: String,
    /// AWS region.
    pub region: String,
    /// Market of the instances.
    #[serde(default)]
    pub market: Market,
    /// AMI id, or `resolve:ssm:` and the name of an SSM parameter that holds one. Optional with a launch template.
    #[serde(default)]
    pub image: String,
    /// Id (`lt-…`) or name of a launch template with settings that this file lacks. Without one the broker creates a template for its
    /// fleets.
    #[serde(default)]
    pub launch_template: Option<String>,
    /// Version of the launch template.
    #[serde(default = "default_version")]
    pub launch_template_version: String,
    /// Possible instance types. Ten or more are interrupted least.
    pub types: Vec<String>,
    /// Subnet of each possible availability zone.
    pub subnets: BTreeMap<String, String>,
    /// Security group ids. They must admit the broker to the SSH port.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Name of the instance profile, if the hosts need one.
    #[serde(default)]
    pub instance_profile: Option<String>,
    /// Whether holders may ask the metadata service of the host: for its instance profile, for example. Otherwise root and the broker's
    /// user alone reach it.
    #[serde(default)]
    pub open_metadata: bool,
    /// Size of the root volume in GiB. Default: the image's.
    #[serde(default)]
    pub root_volume_gb: Option<u32>,
    /// Device name of the root volume in the image.
    #[serde(default = "default_root_device")]
    pub root_device: String,
    /// More tags of instances and volumes.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Shell commands that the first boot runs as root, after it created the users.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Address that the broker and the holders use.
    #[serde(default)]
    pub address: Address,
    /// Type of the host key that the first boot installs. Images in FIPS mode need `ecdsa`.
    #[serde(default)]
    pub host_key_type: wharfinger_ssh::HostKeyType,
    /// URL of the SQS queue of notices. Without it notices come from the hosts and from EC2's lists.
    #[serde(default)]
    pub queue: Option<String>,
    /// Settings of the SSH hosts, as in a pool of kind `ssh` but without hosts. `user` and `key` are required.
    pub ssh: wharfinger_ssh::Config,
    /// An instance without contact to a broker for this time powers itself off, which terminates it. In minutes, at least 10; `0`: never.
    #[serde(default = "default_backstop_minutes")]
    pub backstop_minutes: u32,
    /// Maximum time from the launch to a usable host, in milliseconds. After it another instance is launched.
    #[serde(default = "default_launch_timeout_ms")]
    pub launch_timeout_ms: u64,
    /// Time for which a place rests after an interruption or a lack of capacity, in milliseconds.
    #[serde(default = "default_cool_ms")]
    pub cool_ms: u64,
    /// Interval of the list of all instances, in milliseconds.
    #[serde(default = "default_reconcile_ms")]
    pub reconcile_ms: u64,
    /// Interval of the call for scheduled events and failed status checks, in milliseconds.
    #[serde(default = "default_status_ms")]
    pub status_ms: u64,
    /// Interval of the call for booting instances, in milliseconds.
    #[serde(default = "default_boot_poll_ms")]
    pub boot_poll_ms: u64,
    /// Orphans are logged and not terminated.
    #[serde(default)]
    pub orphans_dry_run: bool,
    /// Maximum share of all instances that one sweep terminates as orphans, in per cent. Three are always allowed.
    #[serde(default = "default_orphans_share")]
    pub orphans_share: u32,
    /// Base URL of all AWS services, for private endpoints.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Base URL of the instance metadata service on the hosts.
    #[serde(default = "default_imds")]
    pub imds: String,
}

/// Market of the instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Market {
    /// Spot, and on demand while there is no spot capacity.
    #[default]
    SpotFirst,
    /// Spot. Requests wait while there is no spot capacity.
    SpotOnly,
    /// On demand.
    OnDemand,
}

/// Address of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// The address in the VPC.
    #[default]
    Private,
    /// The public address.
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
    /// Returns all places, in the order of the file, types first.
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

    /// The broker's private key file.
    pub(crate) fn login_key(&self) -> Result<&Path, Failure> {
        self.ssh
            .key
            .as_deref()
            .ok_or_else(|| Failure::configuration("BAD_CONFIG", "ssh: key is missing; add it to [pool.ec2.ssh]"))
    }

    /// The configured launch template.
    pub(crate) fn template(&self) -> Option<Template> {
        let name = self.launch_template.clone()?;
        Some(Template { name, version: self.launch_template_version.clone() })
    }

    /// Content of the template that the broker creates for the pool's fleets.
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
        // The number is that of the content that the adapter adds.
        spec.name = format!("wharfinger-{:016x}", fnv1a(format!("2 {spec:?}").as_bytes()));
        spec
    }
}

/// A hash that all builds share, for the name of the template.
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
