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

fn bad(message: impl Into<String>) -> Failure {
    Failure::configuration("BAD_CONFIG", message)
}

impl Config {
    /// Checks the settings. A message begins with the key and ends with the remedy.
    ///
    /// # Errors
    /// `BAD_CONFIG` (configuration).
    pub fn validate(&self) -> Result<(), Failure> {
        tag_value("deployment", &self.deployment)?;
        if self.deployment.is_empty() {
            return Err(bad("deployment is empty; write a name that no other broker has in the account"));
        }
        let region = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if self.region.is_empty() || !region(&self.region) {
            return Err(bad(format!("region {:?} is not valid; write one like \"eu-central-1\"", self.region)));
        }
        let given = self.launch_template.is_some() && self.image.is_empty();
        if !given && !self.image.starts_with("ami-") && !self.image.starts_with("resolve:ssm:") {
            let text = "write an AMI id (\"ami-…\"), or \"resolve:ssm:\" and the name of a parameter that holds one";
            return Err(bad(format!("image {:?} is not valid; {text}", self.image)));
        }
        if self.types.is_empty() {
            return Err(bad("types is empty; list the possible instance types, ten or more for spot"));
        }
        for name in &self.types {
            let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
            if !fits || name.split('.').filter(|part| !part.is_empty()).count() != 2 {
                return Err(bad(format!("types: {name:?} is not an instance type; write one like \"m7i.large\"")));
            }
        }
        if self.subnets.is_empty() {
            return Err(bad("subnets is empty; write { \"eu-central-1a\" = \"subnet-…\" } for each possible zone"));
        }
        for (zone, subnet) in &self.subnets {
            if !zone.starts_with(&self.region) || zone == &self.region {
                let text = format!("write zones of {}, as in \"{}a\"", self.region, self.region);
                return Err(bad(format!("subnets: {zone:?} is not a zone of the region; {text}")));
            }
            if !subnet.starts_with("subnet-") {
                return Err(bad(format!("subnets: {subnet:?} is not a subnet; write its id, as in \"subnet-0123…\"")));
            }
        }
        if let Some(group) = self.security_groups.iter().find(|group| !group.starts_with("sg-")) {
            return Err(bad(format!("security_groups: {group:?} is not a group; write its id, as in \"sg-0123…\"")));
        }
        for (key, value) in &self.tags {
            if key.starts_with("aws:") || key.starts_with(tags::PREFIX) {
                return Err(bad(format!("tags: {key:?} is reserved; choose another name")));
            }
            tag_value("tags", value)?;
        }
        if (1..10).contains(&self.backstop_minutes) {
            let minutes = self.backstop_minutes;
            return Err(bad(format!(
                "backstop_minutes is {minutes}, and a restart of the broker may take longer; use 10 or more, or 0"
            )));
        }
        if self.orphans_share > 100 {
            return Err(bad(format!("orphans_share is {}; use 0 to 100", self.orphans_share)));
        }
        for (name, value, least) in [
            ("launch_timeout_ms", self.launch_timeout_ms, 1000),
            ("cool_ms", self.cool_ms, 0),
            ("reconcile_ms", self.reconcile_ms, 100),
            ("status_ms", self.status_ms, 100),
            ("boot_poll_ms", self.boot_poll_ms, 100),
        ] {
            if !(least..=86_400_000).contains(&value) {
                return Err(bad(format!("{name} is {value}; use {least} to 86400000")));
            }
        }
        for (name, url) in
            [("queue", self.queue.as_ref()), ("endpoint", self.endpoint.as_ref()), ("imds", Some(&self.imds))]
        {
            if let Some(url) = url.filter(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
                return Err(bad(format!("{name} {url:?} is not a URL; write one with https:// in front")));
            }
        }
        if !self.ssh.hosts.is_empty() {
            return Err(bad("ssh: the broker launches the hosts; remove `host`, or make a pool of kind \"ssh\""));
        }
        if self.ssh.user.is_none() || self.ssh.key.is_none() {
            return Err(bad("ssh: user or key is missing; add both to [pool.ec2.ssh]"));
        }
        Ok(())
    }

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
        self.ssh.key.as_deref().ok_or_else(|| bad("ssh: key is missing; add it to [pool.ec2.ssh]"))
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
        spec.name = format!("wharfinger-{:016x}", fnv1a(format!("{spec:?}").as_bytes()));
        spec
    }
}

/// A hash that all builds share, for the name of the template.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Checks the value of a tag. Characters that some consoles refuse are not allowed.
fn tag_value(key: &str, value: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " _.:/=+-@".contains(c);
    if value.len() > 128 || !value.chars().all(fits) {
        return Err(bad(format!("{key}: {value:?} cannot be a tag; use up to 128 letters, digits and _.:/=+-@")));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const GOOD: &str = r#"
        deployment = "ci"
        region = "us-east-1"
        image = "ami-1"
        types = ["m7i.large", "m6i.large"]
        subnets = { us-east-1a = "subnet-a", us-east-1b = "subnet-b" }
        ssh = { user = "build", key = "/nowhere/key" }
    "#;

    #[test]
    fn a_short_file_is_valid_and_mistakes_are_reported_with_their_remedy() {
        let good: Config = toml::from_str(GOOD).unwrap();
        good.validate().unwrap();
        assert_eq!((good.market, good.backstop_minutes), (Market::SpotFirst, 360));
        for (change, begin, end) in [
            ("deployment = \"\"", "deployment", "account"),
            ("deployment = \"a\\nb\"", "deployment", "+-@"),
            ("region = \"Europe\"", "region", "eu-central-1\""),
            ("image = \"debian\"", "image", "holds one"),
            ("types = []", "types", "spot"),
            ("types = [\"m7i\"]", "types", "m7i.large\""),
            ("subnets = {}", "subnets", "zone"),
            ("subnets = { eu-west-1a = \"subnet-a\" }", "subnets", "us-east-1a\""),
            ("subnets = { us-east-1a = \"vpc-a\" }", "subnets", "subnet-0123…\""),
            ("security_groups = [\"default\"]", "security_groups", "sg-0123…\""),
            ("tags = { \"aws:x\" = \"y\" }", "tags", "name"),
            ("backstop_minutes = 5", "backstop_minutes", "or 0"),
            ("orphans_share = 101", "orphans_share", "100"),
            ("reconcile_ms = 1", "reconcile_ms", "86400000"),
            ("queue = \"my-queue\"", "queue", "in front"),
            ("ssh = { user = \"build\" }", "ssh", "[pool.ec2.ssh]"),
        ] {
            let key = change.split(' ').next().unwrap();
            let rest: String = GOOD
                .lines()
                .filter(|line| !line.trim().starts_with(key))
                .fold(String::new(), |all, line| all + line + "\n");
            let config: Config = toml::from_str(&format!("{rest}{change}")).unwrap();
            let failure = config.validate().expect_err(change);
            assert!(failure.message.starts_with(begin) && failure.message.ends_with(end), "{change}: {failure}");
            assert!(failure.message.contains("; "), "a remedy: {failure}");
        }
    }
}
