//! Reads and checks a pool's table of the configuration file. Each mistake has the path of its value.

use crate::config::Config;
use crate::tags;
use std::path::Path;
use std::time::Duration;
use wharfinger_adapter::Traits;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Segment, Value, read};

/// The defaults of a pool: idle instances cost money, and a launch with its boot takes time.
pub fn defaults() -> PoolDefaults {
    PoolDefaults {
        max: 4,
        idle: Some(Duration::from_secs(600)),
        provision_timeout: Some(Duration::from_secs(1200)),
        ..PoolDefaults::hosts()
    }
}

impl Config {
    /// The abilities of the adapter.
    pub const TRAITS: Traits = Traits { prepares: true, cleans: true, repairs: false, probes: true };

    /// Reads a pool's table. Paths of key files are relative to the folder of the configuration file.
    ///
    /// # Errors
    /// All mistakes in the table.
    pub fn read(table: Option<&Value>, scope: &Scope, folder: &Path) -> Result<Self, Vec<ConfigProblem>> {
        let none = || {
            vec![ConfigProblem::new(
                "this pool of instances has no table [pool.ec2]",
                "add [pool.ec2] with deployment, region, image, types and subnets, and [pool.ec2.ssh] with user and key",
            )]
        };
        let mut config: Config = read(table.ok_or_else(none)?, scope)?;
        config.ssh = config.ssh.resolved(folder);
        let mut problems = config.problems();
        problems.extend(config.key_problems());
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Mistakes in the settings of the logins. It reads the key files.
    fn key_problems(&self) -> Vec<ConfigProblem> {
        let mut problems = self.ssh.problems();
        if let Some(key) = &self.ssh.key
            && problems.is_empty()
            && let Err(failure) = wharfinger_ssh::public_of(key)
        {
            problems.push(ConfigProblem::new(failure.message, "").at(["key"]));
        }
        problems.into_iter().map(|problem| problem.within("ssh")).collect()
    }

    /// All mistakes in the settings; key files are not read.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        let mut bad = |path: Vec<Segment>, message: String, remedy: String| {
            found.push(ConfigProblem { path, ..ConfigProblem::new(message, remedy) });
        };
        let key = |key: &str| vec![Segment::from(key)];
        if self.deployment.is_empty() {
            let remedy = "give this broker a name that no other has in the account";
            bad(key("deployment"), "`deployment` is empty".into(), remedy.into());
        }
        if let Some((message, remedy)) = tag_fault(&self.deployment) {
            bad(key("deployment"), message, remedy);
        }
        let region = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if self.region.is_empty() || !region(&self.region) {
            let message = format!("`region` {:?} is not a region", self.region);
            bad(key("region"), message, "write one like \"eu-central-1\"".into());
        }
        let given = self.launch_template.is_some() && self.image.is_empty();
        if !given && !self.image.starts_with("ami-") && !self.image.starts_with("resolve:ssm:") {
            let remedy = "write an AMI id (\"ami-…\"), or \"resolve:ssm:\" and the name of a parameter that holds one";
            bad(key("image"), format!("`image` {:?} is neither an image nor a parameter", self.image), remedy.into());
        }
        self.place_problems(&mut bad);
        for (at, group) in self.security_groups.iter().enumerate().filter(|(_, group)| !group.starts_with("sg-")) {
            let path = vec!["security_groups".into(), at.into()];
            bad(path, format!("{group:?} is not a security group"), "write its id, as in \"sg-0123…\"".into());
        }
        for (name, value) in &self.tags {
            let path = || vec![Segment::from("tags"), Segment::from(name)];
            if name.starts_with("aws:") || name.starts_with(tags::PREFIX) {
                let path = vec![Segment::from("tags"), Segment::Name(name.clone())];
                bad(path, format!("the tag {name:?} is reserved"), "choose another name".into());
            }
            if let Some((message, remedy)) = tag_fault(value) {
                bad(path(), message, remedy);
            }
        }
        if (1..10).contains(&self.backstop_minutes) {
            let message = format!("`backstop_minutes` is {}, which a restart may outlast", self.backstop_minutes);
            bad(key("backstop_minutes"), message, "use 10 or more, or 0 for never".into());
        }
        if self.orphans_share > 100 {
            bad(key("orphans_share"), format!("`orphans_share` is {}", self.orphans_share), "use 0 to 100".into());
        }
        for (name, value, least) in [
            ("launch_timeout_ms", self.launch_timeout_ms, 1000),
            ("cool_ms", self.cool_ms, 0),
            ("reconcile_ms", self.reconcile_ms, 100),
            ("status_ms", self.status_ms, 100),
            ("boot_poll_ms", self.boot_poll_ms, 100),
        ] {
            if !(least..=86_400_000).contains(&value) {
                bad(key(name), format!("`{name}` is {value}"), format!("use {least} to 86400000"));
            }
        }
        for (name, url) in
            [("queue", self.queue.as_ref()), ("endpoint", self.endpoint.as_ref()), ("imds", Some(&self.imds))]
        {
            if let Some(url) = url.filter(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
                bad(key(name), format!("`{name}` {url:?} is not a URL"), "write one that begins with https://".into());
            }
        }
        if !self.ssh.hosts.is_empty() {
            let remedy = "take them out, or make a pool with the adapter \"ssh\"";
            bad(vec!["ssh".into(), "host".into()], "hosts of this pool are launched, not listed".into(), remedy.into());
        }
        if self.ssh.user.is_none() || self.ssh.key.is_none() {
            let remedy = "add user and key to [pool.ec2.ssh]";
            bad(key("ssh"), "the user or the key to log in with is missing".into(), remedy.into());
        }
        found
    }

    /// Mistakes in the instance types and subnets.
    fn place_problems(&self, bad: &mut impl FnMut(Vec<Segment>, String, String)) {
        if self.types.is_empty() {
            let remedy = "list the instance types that will do, ten or more for spot";
            bad(vec!["types".into()], "`types` is empty".into(), remedy.into());
        }
        for (at, name) in self.types.iter().enumerate() {
            let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
            if !fits || name.split('.').filter(|part| !part.is_empty()).count() != 2 {
                let path = vec!["types".into(), at.into()];
                bad(path, format!("{name:?} is not an instance type"), "write one like \"m7i.large\"".into());
            }
        }
        if self.subnets.is_empty() {
            let remedy = "write { \"eu-central-1a\" = \"subnet-…\" } for each zone that will do";
            bad(vec!["subnets".into()], "`subnets` is empty".into(), remedy.into());
        }
        for (zone, subnet) in &self.subnets {
            if !zone.starts_with(&self.region) || zone == &self.region {
                let path = vec!["subnets".into(), Segment::Name(zone.clone())];
                let remedy = format!("write zones of {}, as in \"{}a\"", self.region, self.region);
                bad(path, format!("{zone:?} is not a zone of the region"), remedy);
            }
            if !subnet.starts_with("subnet-") {
                let path = vec!["subnets".into(), zone.into()];
                bad(path, format!("{subnet:?} is not a subnet"), "write its id, as in \"subnet-0123…\"".into());
            }
        }
    }
}

/// The fault of a tag's value, and its remedy. EC2 takes more characters; some consoles refuse them.
fn tag_fault(value: &str) -> Option<(String, String)> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " _.:/=+-@".contains(c);
    let good = value.len() <= 128 && value.chars().all(fits);
    (!good).then(|| (format!("{value:?} cannot be a tag"), "use at most 128 letters, digits and _.:/=+-@".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::GOOD;

    #[test]
    fn a_short_table_is_enough_and_each_mistake_has_its_path_and_remedy() {
        let good: Config = toml::from_str(GOOD).unwrap();
        assert_eq!(good.problems(), []);
        for (change, remedy) in [
            ("deployment = \"\"", "account"),
            ("deployment = \"a\\nb\"", "+-@"),
            ("region = \"Europe\"", "eu-central-1\""),
            ("image = \"debian\"", "holds one"),
            ("types = []", "spot"),
            ("types = [\"m7i\"]", "m7i.large\""),
            ("subnets = {}", "do"),
            ("subnets = { eu-west-1a = \"subnet-a\" }", "us-east-1a\""),
            ("subnets = { us-east-1a = \"vpc-a\" }", "subnet-0123…\""),
            ("security_groups = [\"default\"]", "sg-0123…\""),
            ("tags = { \"aws:x\" = \"y\" }", "name"),
            ("backstop_minutes = 5", "never"),
            ("orphans_share = 101", "100"),
            ("reconcile_ms = 1", "86400000"),
            ("queue = \"my-queue\"", "https://"),
            ("ssh = { user = \"build\" }", "[pool.ec2.ssh]"),
        ] {
            let key = change.split(' ').next().unwrap();
            let rest: String = GOOD
                .lines()
                .filter(|line| !line.trim().starts_with(key))
                .fold(String::new(), |all, line| all + line + "\n");
            let config: Config = toml::from_str(&format!("{rest}{change}")).unwrap();
            let problems = config.problems();
            let [problem, ..] = problems.as_slice() else { panic!("{change} is accepted") };
            assert_eq!(problem.path.first(), Some(&Segment::from(key)), "{change}: {problem}");
            assert!(problem.remedy.ends_with(remedy), "{change}: {problem}");
        }
    }
}
