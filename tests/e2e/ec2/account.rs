//! An AWS account in a process of its own, and a farm that launches its hosts there.

use crate::farm::{Farm, Settings};
use crate::grpcurl::tool;
use crate::sshd;
use crate::support::{Server, repository};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use wharfinger_testkit::{Need, need};

/// moto behind the control program. Its drop ends it with all its sshds.
pub(crate) struct Account {
    child: Child,
    endpoint: String,
    queue: String,
    pub(crate) subnets: BTreeMap<String, String>,
    group: String,
    ssh_port: u16,
}

impl Drop for Account {
    fn drop(&mut self) {
        // The program ends with its standard input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// An instance of the account.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) spot: bool,
    pub(crate) zone: String,
    pub(crate) tags: BTreeMap<String, String>,
}

impl Machine {
    pub(crate) fn is_alive(&self) -> bool {
        self.state == "pending" || self.state == "running"
    }
}

/// A call to EC2 or SQS.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) action: String,
    pub(crate) token: Option<String>,
    pub(crate) instances: Vec<String>,
    /// Whether the answer is that of an earlier call with the token.
    pub(crate) again: bool,
}

/// Whether the machine lacks sshd or moto.
pub(crate) fn skip(test: &str) -> bool {
    if sshd::skip(test) {
        return true;
    }
    let has_moto = tool("python").is_some_and(|python| {
        Command::new(python).args(["-c", "import moto, flask"]).status().is_ok_and(|status| status.success())
    });
    need(Need::Moto, has_moto.then_some(())).is_none()
}

impl Account {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/moto/control.py");
        let mut child = Command::new(tool("python").unwrap())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut hello = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut hello).unwrap();
        let hello: Value = serde_json::from_str(&hello).unwrap();
        let text = |key: &str| hello[key].as_str().unwrap().to_string();
        let subnets = serde_json::from_value(hello["subnets"].clone()).unwrap();
        let ssh_port = u16::try_from(hello["ssh_port"].as_u64().unwrap()).unwrap();
        Self { child, endpoint: text("endpoint"), queue: text("queue"), subnets, group: text("group"), ssh_port }
    }

    /// Sets a fault, or returns data of the account.
    pub(crate) fn chaos(&self, what: &str, with: &Value) -> Value {
        let host = self.endpoint.strip_prefix("http://").unwrap();
        let body = with.to_string();
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "POST /chaos/{what} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{what}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// Returns all instances with the ended ones, in the order of their launch.
    pub(crate) fn machines(&self) -> Vec<Machine> {
        let answer = self.chaos("instances", &json!({}));
        let read = |one: &Value| Machine {
            id: one["id"].as_str().unwrap().into(),
            state: one["state"].as_str().unwrap().into(),
            spot: one["spot"].as_bool().unwrap(),
            zone: one["zone"].as_str().unwrap().into(),
            tags: serde_json::from_value(one["tags"].clone()).unwrap(),
        };
        answer["instances"].as_array().unwrap().iter().map(read).collect()
    }

    /// Returns the instances that cost money.
    pub(crate) fn alive(&self) -> Vec<Machine> {
        self.machines().into_iter().filter(Machine::is_alive).collect()
    }

    /// Returns all calls in order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let answer = self.chaos("log", &json!({}));
        let read = |one: &Value| Call {
            action: one["action"].as_str().unwrap().into(),
            token: one["token"].as_str().map(String::from),
            instances: serde_json::from_value(one["instances"].clone()).unwrap(),
            again: one["again"].as_bool().unwrap_or(false),
        };
        answer["calls"].as_array().unwrap().iter().map(read).collect()
    }

    /// Returns the calls that launched an instance, each token once.
    pub(crate) fn launches(&self) -> Vec<Call> {
        let launches = |call: &Call| call.action == "RunInstances" || call.action == "CreateFleet";
        self.calls().into_iter().filter(|call| launches(call) && !call.instances.is_empty() && !call.again).collect()
    }

    /// Adds an instance with these tags that no resource owns.
    pub(crate) fn stray(&self, tags: &Value) -> String {
        let subnet = self.subnets.values().next().unwrap();
        self.chaos("stray", &json!({ "subnet": subnet, "tags": tags }))["id"].as_str().unwrap().into()
    }

    /// Returns the number of calls of this action.
    pub(crate) fn count(&self, action: &str) -> usize {
        self.calls().into_iter().filter(|call| call.action == action).count()
    }

    /// Sends an event to the queue, as EventBridge does.
    pub(crate) fn event(&self, kind: &str, detail: &Value) {
        let source = match kind {
            "AWS Health Event" => "aws.health",
            "EC2 Instance-terminate Lifecycle Action" => "aws.autoscaling",
            _ => "aws.ec2",
        };
        let body =
            json!({ "version": "0", "source": source, "detail-type": kind, "region": "us-east-1", "detail": detail });
        self.chaos("send", &json!({ "body": body.to_string() }));
    }

    /// Sends the warning of two minutes.
    pub(crate) fn warn(&self, instance: &str) {
        let detail = json!({ "instance-id": instance, "instance-action": "terminate" });
        self.event("EC2 Spot Instance Interruption Warning", &detail);
    }

    /// Sends the warning of two minutes, as an SNS topic does.
    pub(crate) fn warn_by_topic(&self, instance: &str) {
        let event = json!({ "version": "0", "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
                            "detail": { "instance-id": instance, "instance-action": "terminate" } });
        // The event has no time of its own, so the envelope's time counts.
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let time = self.chaos("time", &json!({ "unix": now }))["text"].clone();
        let body = json!({ "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
                           "TopicArn": "arn:aws:sns:us-east-1:123456789012:ends", "Message": event.to_string(),
                           "Timestamp": time, "SignatureVersion": "1" });
        self.chaos("send", &json!({ "body": body.to_string() }));
    }

    /// Ends an instance as spot does, with its sshd.
    pub(crate) fn take_away(&self, instance: &str) {
        let reason = "Server.SpotInstanceTermination";
        self.chaos("state", &json!({ "id": instance, "name": "shutting-down", "reason": reason }));
    }

    /// Returns the settings of an adapter without a broker.
    pub(crate) fn alone(&self, key: &Path, work: &Path) -> String {
        let subnets: Vec<String> = self.subnets.iter().map(|(zone, id)| format!("{zone} = {id:?}")).collect();
        format!(
            "deployment = \"contract\"\nregion = \"us-east-1\"\nimage = \"ami-good\"\n\
             types = [\"m7i.large\", \"m6i.large\"]\nsubnets = {{ {} }}\nsecurity_groups = [{:?}]\nendpoint = {:?}\n\
             boot_poll_ms = 100\nreconcile_ms = 500\n\
             [ssh]\nuser = \"root\"\nkey = {key:?}\nport = {}\nwork_dir = {work:?}\nmin_free_disk_mb = 1\n\
             notice_file = \"\"\nshutdown_file = \"\"\n",
            subnets.join(", "),
            self.group,
            self.endpoint,
            self.ssh_port,
        )
    }

    /// Returns the environment of the broker, with the credentials of the account.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ]
        .map(|(key, value)| (key, value.to_string()))
        .to_vec()
    }
}

/// Settings of a test, as lines of TOML.
#[derive(Clone, Copy)]
pub(crate) struct Pools {
    /// Settings of the pool `spot`.
    pub(crate) spot: &'static str,
    /// Settings of its `[pool.ec2]`.
    pub(crate) ec2: &'static str,
    /// Settings of its `[pool.ec2.ssh]`.
    pub(crate) ssh: &'static str,
    /// Settings of the pool `copies`.
    pub(crate) copies: &'static str,
    /// Whether there is a queue.
    pub(crate) queue: bool,
    /// Instance types. One type in one zone needs no fleet.
    pub(crate) types: &'static [&'static str],
    /// Number of zones.
    pub(crate) zones: usize,
    /// Whether the intervals are the defaults, for many hosts. Otherwise they are much shorter.
    pub(crate) calm: bool,
}

/// Short intervals of probes, lists and notices.
const QUICK: [&str; 3] = [
    "[pool.doubt]\nprobe_interval = \"1s\"\nretry_interval = \"200ms\"\nmisses = 3\nover = \"600ms\"",
    "reconcile_ms = 500\nstatus_ms = 500\nboot_poll_ms = 100",
    "notice_interval_ms = 300",
];

impl Default for Pools {
    fn default() -> Self {
        Self {
            spot: "max = 3",
            ec2: "",
            ssh: "",
            copies: "max = 3\nidle = \"1s\"",
            queue: true,
            types: &["m7i.large", "m6i.large"],
            zones: 2,
            calm: false,
        }
    }
}

/// An account, and a farm with its hosts.
pub(crate) struct Cloud {
    pub(crate) farm: Farm,
    pub(crate) account: Account,
    pools: Pools,
    key: PathBuf,
}

impl Cloud {
    pub(crate) fn start(pools: Pools) -> Self {
        Self::start_in(Account::start(), pools)
    }

    /// Starts the farm in an account that may have faults.
    pub(crate) fn start_in(account: Account, pools: Pools) -> Self {
        let mut server = Server::prepared("w.db");
        server.env = account.env();
        repository(&server.folder.path().join("origin"));
        let key = server.folder.path().join("key");
        sshd::make_key(&key, "ed25519");
        let work = tempfile::tempdir().unwrap();
        server.configure("", &toml(&account, &pools, &key, work.path()));
        let farm = Farm::over(server, Vec::new(), Settings::default(), work);
        Self { farm, account, pools, key }
    }

    /// Changes the configuration, and reloads it in the server.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&mut Pools)) {
        change(&mut self.pools);
        self.farm.server.configure("", &toml(&self.account, &self.pools, &self.key, self.farm.work()));
        self.farm.server.reload();
    }

    /// Returns the instance of a host.
    pub(crate) fn instance_of(&self, resource: &str) -> String {
        self.farm.resource(resource).labels.get("instance").cloned().unwrap()
    }

    /// Returns the host of a copy.
    pub(crate) fn host_of(&self, copy: &str) -> String {
        self.farm.resource(copy).parent_id
    }

    /// Checks a condition until the broker has made this number of further calls that list instances. It is the proof that
    /// something does not happen, in steps of the broker and not in seconds.
    pub(crate) fn throughout_lists(&self, lists: usize, mut holds: impl FnMut(&Farm)) {
        let before = self.account.count("DescribeInstances");
        self.farm.server.wait(&format!("{lists} lists"), || {
            holds(&self.farm);
            (self.account.count("DescribeInstances") >= before + lists).then_some(())
        });
        holds(&self.farm);
    }

    /// Waits until this number of instances is alive.
    pub(crate) fn until_alive(&self, count: usize) -> Vec<Machine> {
        self.farm.server.wait(&format!("{count} instances"), || {
            let alive = self.account.alive();
            (alive.len() == count).then_some(alive)
        })
    }
}

fn toml(account: &Account, pools: &Pools, key: &Path, work: &Path) -> String {
    let subnets: Vec<String> =
        account.subnets.iter().take(pools.zones).map(|(zone, id)| format!("{zone} = {id:?}")).collect();
    let queue = if pools.queue { format!("queue = {:?}", account.queue) } else { String::new() };
    let image = if pools.ec2.contains("image") { "" } else { "image = \"ami-good\"" };
    let (key, work) = (key.display(), work.display());
    let [doubt, lists, notices] = if pools.calm { [""; 3] } else { QUICK };
    format!(
        r#"
[[pool]]
name = "spot"
adapter = "ec2"
{spot}
{doubt}
[pool.ec2]
deployment = "e2e"
region = "us-east-1"
types = {types:?}
subnets = {{ {subnets} }}
security_groups = [{group:?}]
endpoint = {endpoint:?}
{image}
{queue}
{lists}
{ec2}
[pool.ec2.ssh]
user = "root"
key = "{key}"
holder_key = "{key}"
port = {port}
work_dir = "{work}"
notice_file = ""
shutdown_file = ""
{notices}
{ssh}
[[pool]]
name = "copies"
adapter = "copies"
on = "spot"
{copies}
[pool.copies]
repository = "{{folder}}/origin"
"#,
        spot = pools.spot,
        types = pools.types,
        subnets = subnets.join(", "),
        group = account.group,
        endpoint = account.endpoint,
        ec2 = pools.ec2,
        port = account.ssh_port,
        ssh = pools.ssh,
        copies = pools.copies,
    )
}
