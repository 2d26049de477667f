//! A farm of two tenants each of whose words is marked, with hosts, copies, breaks, a page, hooks, meters, traces and an audit file. No
//! mark of one is in an answer to the other, and no secret is in anything that is stored, printed or sent.

use crate::hooks::{Receiver, SECRET, hook, secret_in};
use crate::sshd::{Sshd, skip};
use crate::support::{PATIENCE, Server, free_port, repository, text};
use crate::tokens::{Caller, caller};
use crate::traces::Running;
use prost::Message;
use prost_types::FileDescriptorSet;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use wharfinger::pb;
use wharfinger::pb::admin_service_client::AdminServiceClient;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::trust_service_client::TrustServiceClient;

const MARKS: [&str; 2] = ["alpha-7c1f0e", "beta-d94b2a"];
/// Ends of words that a tenant keeps to itself and its hosts.
const KEPT: [&str; 4] = ["-environment", "-input", "-output", "-argument"];
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Methods that change something. All others are asked.
const CHANGES: [&str; 18] = [
    "Lease",
    "Release",
    "Renew",
    "Report",
    "Login",
    "Cordon",
    "Uncordon",
    "Drain",
    "Undrain",
    "Check",
    "Taint",
    "Quarantine",
    "Hold",
    "Recover",
    "Recycle",
    "ForceDestroy",
    "Note",
    "Break",
];

/// All that a caller was answered, in the forms in which it may be printed or sent.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    /// The screens of the page.
    page: Vec<u8>,
    methods: BTreeSet<&'static str>,
}

impl Heard {
    fn answer<T: Message + Debug>(&mut self, method: &'static str, answer: Result<Response<T>, Status>) {
        self.methods.insert(method);
        match answer {
            Ok(answer) => {
                self.bytes.extend(format!("{answer:?}").into_bytes());
                self.bytes.extend(answer.into_inner().encode_to_vec());
            }
            Err(status) => {
                self.bytes.extend(format!("{status:?}").into_bytes());
                self.bytes.extend(status.details());
            }
        }
    }
}

impl Heard {
    fn has(&self, mark: &str) -> bool {
        has(&self.bytes, mark) || has(&self.page, mark)
    }
}

fn has(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

struct World {
    server: Server,
    hosts: Vec<Sshd>,
    work: tempfile::TempDir,
    otel: Running,
    receiver: Receiver,
    /// An agent of each tenant, a lead of each, and an operator.
    callers: [Caller; 5],
    page: u16,
    meters: u16,
    runtime: tokio::runtime::Runtime,
    /// Output of all commands of holders on standard error.
    errors: Vec<u8>,
    /// Ids of the leases of each tenant.
    leases: [Vec<String>; 2],
}

const OPERATOR: usize = 4;

/// The answers to one caller, about its own leases and where it named those of another.
struct Told {
    own: Heard,
    foreign: Heard,
}

impl World {
    fn start() -> Self {
        let mut server = Server::prepared("w.db");
        server.env.push(("WHARFINGER_LOG", "trace".into()));
        repository(&server.folder.path().join("origin"));
        let hosts = vec![Sshd::start(), Sshd::start()];
        // The pool has one key for holders.
        let all = std::fs::read_to_string(hosts[0].key().with_extension("pub")).unwrap();
        let own = hosts[1].folder().join("authorized_keys");
        std::fs::write(&own, format!("{}{all}", std::fs::read_to_string(&own).unwrap())).unwrap();
        let new = |id: &str, tenant: &str, role: &str| caller(&server, id, tenant, role);
        let lead = |id: &str, tenant: &str| {
            let new = caller(&server, id, tenant, "agent");
            let lines = new.lines.replace("[\"agent\"]", "[\"agent\", \"reader\", \"lead\"]");
            assert_ne!(lines, new.lines);
            Caller { lines, ..new }
        };
        let callers = [
            new("a-ci", "a", "agent"),
            new("b-ci", "b", "agent"),
            lead("a-lead", "a"),
            lead("b-lead", "b"),
            new("ops", "ops", "admin"),
        ];
        let (page, meters, hooked) = (free_port(), free_port(), free_port());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut world = Self {
            receiver: Receiver::start(hooked, true),
            otel: Running::start(),
            work: tempfile::tempdir().unwrap(),
            errors: Vec::new(),
            leases: Default::default(),
            server,
            hosts,
            callers,
            page,
            meters,
            runtime,
        };
        world.configure(hooked, &[]);
        world.server.spawn();
        world.server.wait("the server to answer", || world.cli(OPERATOR, &["pools"]).status.success().then_some(()));
        world
    }

    /// Writes the configuration. `admins`: callers that are administrators by mistake.
    fn configure(&mut self, hooked: u16, admins: &[usize]) {
        let folder = self.server.folder.path();
        let secret = secret_in(folder);
        let tokens = self.callers.iter().enumerate().map(|(n, caller)| {
            if admins.contains(&n) { caller.lines.replace("[\"agent\"]", "[\"admin\"]") } else { caller.lines.clone() }
        });
        let head = format!(
            "[page]\nlisten = \"127.0.0.1:{}\"\n[metrics]\nlisten = \"127.0.0.1:{}\"\n[traces]\nendpoint = \"{}\"\n\
             [audit]\nfile = \"{}/refusals\"\n{}{}",
            self.page,
            self.meters,
            self.otel.address,
            folder.display(),
            hook(hooked, &secret),
            tokens.collect::<String>(),
        );
        let named = [("a", &self.hosts[0]), ("b", &self.hosts[1])];
        self.server.configure(&head, &crate::hosts::pools(&named, self.work.path()));
    }

    fn cli(&self, by: usize, args: &[&str]) -> std::process::Output {
        let mut command = self.callers[by].command(&self.server, args);
        command.env("TRACEPARENT", TRACE).output().unwrap()
    }

    /// A command of a tenant's agent, whose standard error is kept.
    fn run(&mut self, tenant: usize, args: &[&str]) -> std::process::Output {
        let mut command = self.callers[tenant].command(&self.server, args);
        command.env("TRACEPARENT", TRACE).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = format!("{}-input\n", MARKS[tenant]);
        // A command that leases alone reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        self.errors.extend(&output.stderr);
        output
    }

    /// A lease of a tenant each word of which has its mark.
    fn lease(&mut self, tenant: usize, pool: &str, name: &str, more: &[&str]) -> String {
        let words = words(tenant, name);
        let mut args = vec!["lease", "--json", "--pool", pool, "--ttl", "10m"];
        args.extend(words.iter().map(String::as_str));
        args.extend(more);
        let output = self.run(tenant, &args);
        let leased: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a lease");
        let id = leased["lease"]["id"].as_str().unwrap_or_else(|| panic!("{}", text(&output))).to_owned();
        self.leases[tenant].push(id.clone());
        id
    }

    /// All that the tenants do: builds that pass and fail, notes, reports, a queue, and hosts that die.
    fn live(&mut self) {
        for (tenant, mark) in MARKS.into_iter().enumerate() {
            let environment = format!("SECRET={mark}-environment");
            let script = format!(
                "cat >read; grep -q {mark}-input read && test \"$SECRET\" = {mark}-environment && echo {mark}-output; \
                 echo {mark}-output >&2; exit $1"
            );
            for (name, code) in [("passes", "0"), ("fails", "3")] {
                let words = words(tenant, name);
                let mut args = vec!["run", "--pool", "copies", "--retries", "0", "--env", &environment];
                args.extend(words.iter().map(String::as_str));
                let argument = format!("{mark}-argument");
                args.extend(["--", "sh", "-c", &script, "sh", code, &argument]);
                let output = self.run(tenant, &args);
                assert_eq!(
                    output.status.code().map(|code| code.to_string()).as_deref(),
                    Some(code),
                    "{}",
                    text(&output)
                );
                assert!(has(&output.stdout, &format!("{mark}-output")), "{}", text(&output));
                // The command's own output.
                self.errors = without(&self.errors, &format!("{mark}-output"));
            }
            let note = format!("{mark}-note");
            let ended = self.lease(tenant, "copies", "ends", &["--wait", "60s"]);
            assert!(self.run(tenant, &["release", &ended, "--outcome", "failed", "--note", &note]).status.success());
            let held = self.lease(tenant, "copies", "held", &["--wait", "60s"]);
            let reported = self.run(tenant, &["report", &held, &note]);
            assert!(reported.status.success(), "{}", text(&reported));
        }
        // More than there are slots: some wait.
        for n in 0..4 {
            for tenant in 0..2 {
                self.lease(tenant, "hosts", &format!("waits-{n}"), &[]);
            }
        }
    }

    /// The state of a lease, as an operator sees it.
    fn state(&self, lease: &str) -> String {
        self.callers[OPERATOR].json(&self.server, &["get", lease])["state"].as_str().unwrap().to_owned()
    }

    /// Asks all that can be asked over gRPC and on the page.
    fn ask(&self, by: Option<usize>, leases: &[String], heard: &mut Heard) {
        let resources: Vec<String> = {
            let all = self.callers[OPERATOR].json(&self.server, &["resources", "--all"]);
            all["resources"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
        };
        let token = by.map(|by| self.callers[by].token.as_str());
        self.runtime.block_on(asked(&self.server.address, token, leases, &resources, heard));
        let mut paths: Vec<String> =
            ["/", "/pools", "/pools/hosts", "/pools/copies", "/resources", "/leases", "/queue"]
                .into_iter()
                .chain(["/events", "/servers", "/sign-in", "/view?at=/", "/view?at=/leases", "/live?at=/"])
                .map(str::to_owned)
                .collect();
        paths.extend(["ACTIVE", "QUEUED", "RELEASED", "BROKEN"].map(|state| format!("/leases?state={state}")));
        for id in leases {
            paths.extend(["", "/act/release", "/act/break"].map(|rest| format!("/leases/{id}{rest}")));
        }
        paths.extend(resources.iter().map(|id| format!("/resources/{id}")));
        for path in paths {
            heard.page.extend(get(self.page, &path, token));
        }
    }

    /// The answers to each caller.
    fn told(&self) -> Vec<Told> {
        let all = self.leases.concat();
        let callers = (0..self.callers.len()).map(|by| {
            let mut told = Told { own: Heard::default(), foreign: Heard::default() };
            if by == OPERATOR {
                self.ask(Some(by), &all, &mut told.own);
            } else {
                self.ask(Some(by), &self.leases[by % 2], &mut told.own);
                self.ask(Some(by), &self.leases[1 - by % 2], &mut told.foreign);
            }
            told
        });
        callers.collect()
    }

    /// The secrets: by a name for people.
    fn secrets(&self) -> Vec<(String, String)> {
        let mut all = vec![("the key of hooks".to_owned(), SECRET.to_owned())];
        for (n, caller) in self.callers.iter().enumerate() {
            all.push((format!("the token of caller {n}"), caller.token.clone()));
        }
        let key = std::fs::read_to_string(self.hosts[0].key()).unwrap();
        let line = key.lines().nth(key.lines().count() / 2).unwrap();
        assert!(line.len() > 30, "{line}");
        all.push(("the key of holders".to_owned(), line.to_owned()));
        for mark in MARKS {
            all.extend(KEPT.map(|end| (format!("what {mark} keeps"), format!("{mark}{end}"))));
        }
        all
    }

    /// Dumps a copy of the database, which the server keeps to itself.
    fn dump(&self, to: &Path) {
        let folder = self.server.folder.path();
        let (copy, config) = (folder.join("copy"), folder.join("copy.toml"));
        let settings = std::fs::read_to_string(self.server.config()).unwrap();
        std::fs::write(&config, settings.replace("path = \"w.db\"", "path = \"copy/w.db\"")).unwrap();
        // A copy that was made amidst a commit may be none.
        self.server.wait_by(|| {
            let _ = (std::fs::remove_dir_all(&copy), std::fs::remove_file(to));
            std::fs::create_dir(&copy).unwrap();
            for name in ["w.db", "w.db-wal"] {
                let _ = std::fs::copy(folder.join(name), copy.join(name));
            }
            let args = ["db", "dump", "--config", config.to_str().unwrap(), to.to_str().unwrap()];
            let output = self.server.cli(&args);
            println!("{}", text(&output));
            output.status.success()
        });
    }

    /// All that is stored, printed or sent beside answers, by a name for people.
    fn records(&self) -> Vec<(String, Vec<u8>)> {
        let folder = self.server.folder.path();
        self.dump(&folder.join("dump"));
        let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| is_a_record(path))
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
            .collect();
        let trail = self.cli(OPERATOR, &["events", "--json", "--limit", "1000"]).stdout;
        let delivered: Vec<u8> = self.receiver.got().into_iter().flat_map(|got| got.body).collect();
        all.extend([
            ("the log".to_owned(), self.server.log().into_bytes()),
            ("the audit trail".to_owned(), trail),
            ("the hooks".to_owned(), delivered),
            ("the traces".to_owned(), format!("{:?}", self.otel.spans()).into_bytes()),
            ("the meters".to_owned(), get(self.meters, "/metrics", None)),
            ("standard error of the holders".to_owned(), self.errors.clone()),
        ]);
        all
    }

    /// Each mark and secret that is where it must not be.
    fn leaks(&self, told: &[Told]) -> BTreeSet<String> {
        let mut leaks = BTreeSet::new();
        let secrets = self.secrets();
        for (by, told) in told.iter().enumerate().filter(|(by, _)| *by != OPERATOR) {
            let other = MARKS[1 - by % 2];
            for heard in [&told.own, &told.foreign] {
                if heard.has(other) {
                    leaks.insert(format!("caller {by} is told of {other}"));
                }
            }
            if self.leases[1 - by % 2].iter().any(|id| told.own.has(id)) {
                leaks.insert(format!("caller {by} is told a lease of {other}"));
            }
        }
        // The owner of a lease that it names gets the key of holders.
        let answers = told.iter().enumerate().flat_map(|(by, told)| {
            [
                (format!("an answer to caller {by}"), &told.own),
                (format!("a foreign answer to caller {by}"), &told.foreign),
            ]
        });
        for (place, heard) in answers {
            for (name, secret) in &secrets {
                let own_key = name == "the key of holders"
                    && ["0", "1"].iter().any(|by| place == format!("an answer to caller {by}"));
                if has(&heard.page, secret) || !own_key && has(&heard.bytes, secret) {
                    leaks.insert(format!("{name} is in {place}"));
                }
            }
        }
        for (place, bytes) in self.records() {
            assert!(!bytes.is_empty() || place.ends_with("-wal"), "{place} has something");
            for (name, secret) in &secrets {
                if has(&bytes, secret) {
                    leaks.insert(format!("{name} is in {place}"));
                }
            }
            // Everyone who reaches the port reads the meters.
            if place == "the meters" && MARKS.iter().any(|mark| has(&bytes, mark)) {
                leaks.insert("the meters name a tenant's words".to_owned());
            }
        }
        leaks
    }
}

/// Files of the server that hold its state, and not its settings.
fn is_a_record(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    path.is_file() && (name.starts_with("w.db") || name == "dump" || name.starts_with("refusals"))
}

/// The options of a request each word of which has the tenant's mark.
fn words(tenant: usize, name: &str) -> Vec<String> {
    let mark = MARKS[tenant];
    vec![
        "--holder".into(),
        format!("{mark}-holder"),
        "--work".into(),
        format!("{mark}-work-{name}"),
        "--meta".into(),
        format!("{mark}-key={mark}-value"),
        "--request-id".into(),
        format!("{mark}-request-{name}"),
    ]
}

fn without(bytes: &[u8], word: &str) -> Vec<u8> {
    String::from_utf8_lossy(bytes).replace(word, "").into_bytes()
}

/// The answer of a port for HTTP.
fn get(port: u16, path: &str, token: Option<&str>) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // A stream of the page stays open: its beginning is enough.
    let limit = if path.starts_with("/live") { Duration::from_millis(500) } else { PATIENCE };
    stream.set_read_timeout(Some(limit)).unwrap();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{token}Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Asks each method that reads.
async fn asked(address: &str, token: Option<&str>, leases: &[String], resources: &[String], heard: &mut Heard) {
    let address = address.to_owned();
    let mut api = LeaseServiceClient::connect(address.clone()).await.unwrap();
    let mut admin = AdminServiceClient::connect(address.clone()).await.unwrap();
    let mut trust = TrustServiceClient::connect(address).await.unwrap();
    let by = |request: &mut tonic::metadata::MetadataMap| {
        if let Some(token) = token {
            request.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
    };
    macro_rules! ask {
        ($name:literal, $client:ident . $method:ident ( $message:expr )) => {{
            let mut request = Request::new($message);
            by(request.metadata_mut());
            let answer = $client.$method(request).await;
            heard.answer($name, answer);
        }};
    }
    for id in leases {
        let lease_id = id.clone();
        ask!("Get", api.get(pb::GetRequest { lease_id: lease_id.clone(), min_revision: 0 }));
        ask!("Explain", api.explain(pb::ExplainRequest { lease_id: lease_id.clone(), min_revision: 0 }));
        ask!("Timeline", api.timeline(pb::TimelineRequest { lease_id: lease_id.clone(), ..Default::default() }));
        ask!("Events", admin.events(pb::EventsRequest { lease_id: lease_id.clone(), ..Default::default() }));
        let mut request = Request::new(pb::WatchRequest { lease_ids: vec![lease_id], ..Default::default() });
        by(request.metadata_mut());
        watched(&mut api, request, heard).await;
    }
    for id in resources {
        let resource_id = id.clone();
        let get = pb::GetResourceRequest { resource_id: resource_id.clone(), ..Default::default() };
        ask!("GetResource", admin.get_resource(get));
        ask!("Timeline", api.timeline(pb::TimelineRequest { resource_id: resource_id.clone(), ..Default::default() }));
        ask!("List", api.list(pb::ListRequest { resource_id, ..Default::default() }));
    }
    for states in [Vec::new(), (1..=9).collect()] {
        ask!("List", api.list(pb::ListRequest { states, ..Default::default() }));
    }
    for holder in MARKS.map(|mark| format!("{mark}-holder")) {
        ask!("List", api.list(pb::ListRequest { holders: vec![holder], page_size: 1, ..Default::default() }));
    }
    for pool in ["", "hosts", "copies"] {
        ask!("ListQueue", api.list_queue(pb::ListQueueRequest { pool: pool.into(), ..Default::default() }));
    }
    let open = pb::SessionOpen { holder: "canary".into(), ..Default::default() };
    let first = pb::SessionRequest { open: Some(open), beat: 1, ..Default::default() };
    let last = pb::SessionRequest { close: true, ..Default::default() };
    let mut request = Request::new(tokio_stream::iter([first, last]));
    by(request.metadata_mut());
    in_session(api.session(request).await, heard).await;
    ask!("GetServer", api.get_server(pb::GetServerRequest {}));
    ask!("ListServers", api.list_servers(pb::ListServersRequest {}));
    ask!("ListPools", admin.list_pools(pb::ListPoolsRequest::default()));
    ask!("ListTenants", admin.list_tenants(pb::ListTenantsRequest::default()));
    for name in ["hosts", "copies"] {
        ask!("GetPool", admin.get_pool(pb::GetPoolRequest { name: name.into(), ..Default::default() }));
    }
    ask!("ListResources", admin.list_resources(pb::ListResourcesRequest::default()));
    let mut request = Request::new(pb::WatchResourcesRequest { include_pools: true, ..Default::default() });
    by(request.metadata_mut());
    watched_resources(&mut admin, request, heard).await;
    ask!("Events", admin.events(pb::EventsRequest::default()));
    ask!("Weather", admin.weather(pb::WeatherRequest {}));
    ask!("WhoAmI", trust.who_am_i(pb::WhoAmIRequest {}));
    ask!("CanI", trust.can_i(pb::CanIRequest { verb: "get".into(), pool: "hosts".into() }));
    for request in [
        pb::WatchRequest { include_ended: true, ..Default::default() },
        pb::WatchRequest { pools: vec!["copies".into()], include_ended: true, ..Default::default() },
        pb::WatchRequest { from_revision: 1, ..Default::default() },
    ] {
        let mut request = Request::new(request);
        by(request.metadata_mut());
        watched(&mut api, request, heard).await;
    }
}

/// Hears a session that keeps no lease until it is closed, or it is refused.
async fn in_session(opened: Result<Response<Streaming<pb::SessionResponse>>, Status>, heard: &mut Heard) {
    let mut stream = match opened {
        Ok(stream) => stream.into_inner(),
        Err(status) => return heard.answer::<pb::SessionResponse>("Session", Err(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => heard.answer("Session", Ok(Response::new(message))),
            Ok(None) => return,
            Err(status) => return heard.answer::<pb::SessionResponse>("Session", Err(status)),
        }
    }
}

/// Hears a watch until its beginning is complete, or it is refused.
async fn watched(api: &mut LeaseServiceClient<Channel>, request: Request<pb::WatchRequest>, heard: &mut Heard) {
    let mut stream = match api.watch(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return heard.answer::<pb::WatchResponse>("Watch", Err(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                let synced = matches!(&message.event, Some(pb::watch_response::Event::Bookmark(mark)) if mark.synced);
                heard.answer("Watch", Ok(Response::new(message)));
                if synced {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => return heard.answer::<pb::WatchResponse>("Watch", Err(status)),
        }
    }
}

/// Hears a watch of resources and pools until its beginning is complete, or it is refused.
async fn watched_resources(
    admin: &mut AdminServiceClient<Channel>,
    request: Request<pb::WatchResourcesRequest>,
    heard: &mut Heard,
) {
    const METHOD: &str = "WatchResources";
    let mut stream = match admin.watch_resources(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return heard.answer::<pb::WatchResourcesResponse>(METHOD, Err(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                let synced =
                    matches!(&message.event, Some(pb::watch_resources_response::Event::Bookmark(mark)) if mark.synced);
                heard.answer(METHOD, Ok(Response::new(message)));
                if synced {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => return heard.answer::<pb::WatchResourcesResponse>(METHOD, Err(status)),
        }
    }
}

/// All methods of the API that read.
fn reads() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap().file;
    let services = files.iter().filter(|file| file.package() == "wharfinger.v1").flat_map(|file| &file.service);
    let methods = services.flat_map(|service| service.method.iter().map(|method| method.name().to_owned()));
    methods.filter(|name| !CHANGES.contains(&name.as_str())).collect()
}

#[test]
fn no_word_of_one_tenant_reaches_the_other_and_no_secret_leaves_its_place() {
    if skip("canary::no_word_of_one_tenant_reaches_the_other_and_no_secret_leaves_its_place") {
        return;
    }
    let mut world = World::start();
    world.live();
    let before = world.told();
    assert_eq!(world.leaks(&before), BTreeSet::new(), "while they work");
    // Each caller hears of its own, and an operator of all: the search can find.
    for (by, told) in before.iter().enumerate() {
        let asked: BTreeSet<String> = told.own.methods.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(asked, reads(), "each method that reads is asked by caller {by}");
        for (n, mark) in MARKS.iter().enumerate().filter(|(n, _)| by == OPERATOR || by % 2 == *n) {
            let lease = &world.leases[n][0];
            assert!(has(&told.own.bytes, mark) && has(&told.own.bytes, lease), "caller {by}: {mark}");
            assert!(has(&told.own.page, mark), "the page of caller {by}: {mark}");
        }
    }
    let key = world.secrets().into_iter().find(|(name, _)| name == "the key of holders").unwrap().1;
    assert!(has(&before[0].own.bytes, &key) && has(&before[1].own.bytes, &key), "owners get the key of their leases");
    let mut nobody = Heard::default();
    world.ask(None, &world.leases.concat(), &mut nobody);
    assert!(!MARKS.iter().any(|mark| nobody.has(mark)), "a caller without a token is told nothing");

    // Every host dies under the leases of both.
    let held: Vec<String> = world.leases.concat().into_iter().filter(|id| world.state(id) == "ACTIVE").collect();
    assert!(held.len() >= 3, "{held:?}");
    for host in &mut world.hosts {
        host.kill_hard();
    }
    world.server.wait_by(|| held.iter().all(|id| world.state(id) == "BROKEN"));
    for host in &mut world.hosts {
        host.run();
    }
    let after = world.told();
    assert_eq!(world.leaks(&after), BTreeSet::new(), "after breaks");
    world.server.wait_by(|| world.receiver.got().iter().any(|got| has(&got.body, "lease.broken")));
    world.server.wait_by(|| world.otel.spans().iter().any(|span| span.name == "lease.break"));
    assert_eq!(world.leaks(&after), BTreeSet::new(), "once the breaks were sent");

    // The search finds what is planted: a holder's token in a note, and a role too many.
    let note = world.callers[0].token.clone();
    let lease = world.leases[0].iter().find(|id| ["QUEUED", "ACTIVE"].contains(&world.state(id).as_str())).cloned();
    let lease = lease.expect("one still waits, or has a host that came back");
    assert!(world.cli(0, &["release", &lease, "--note", &note]).status.success());
    let hooked = world.receiver.port();
    world.configure(hooked, &[1]);
    world.server.reload();
    world.server.wait_by(|| text(&world.cli(1, &["resources"])).contains("exit Some(0)"));
    let planted = world.told();
    let leaks = world.leaks(&planted);
    for leak in [
        format!("caller 1 is told of {}", MARKS[0]),
        format!("caller 1 is told a lease of {}", MARKS[0]),
        "the token of caller 0 is in dump".to_owned(),
        "the token of caller 0 is in the audit trail".to_owned(),
        "the token of caller 0 is in an answer to caller 0".to_owned(),
        "the token of caller 0 is in an answer to caller 1".to_owned(),
    ] {
        assert!(leaks.contains(&leak), "{leak}: {leaks:#?}");
    }
    assert!(leaks.iter().any(|leak| leak.starts_with("the token of caller 0 is in w.db")), "{leaks:#?}");
    assert!(!leaks.iter().any(|leak| leak.contains("caller 3")), "{leaks:#?}");
}
