//! The contract of every adapter, on an instance in memory with a real sshd behind it. The sshd has the host key, the login and the
//! metadata service of the user data.

#[path = "../../../ssh/tests/support/mod.rs"]
pub(super) mod support;

use super::world::Books;
use crate::cloud::Cloud;
use crate::config::Config;
use crate::config::tests::GOOD;
use crate::fake::FakeCloud;
use crate::{Accounts, Ec2Adapter};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use support::{Sshd, skip};
use wharfinger_adapter::{Adapter, ResourceJob};
use wharfinger_host::conformance;

/// Starts a metadata service for the newest instance, and returns its URL.
pub(super) fn imds(cloud: Arc<FakeCloud>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            let token = lines.take_while(|line| !line.is_empty()).any(|line| line == "X-aws-ec2-metadata-token: token");
            let newest = cloud.instances().pop().map(|instance| instance.id).unwrap_or_default();
            let (code, text) = match request.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" if request.starts_with("PUT ") => (200, "token"),
                _ if !token => (401, "no token"),
                "/latest/meta-data/instance-id" => (200, newest.as_str()),
                "/latest/meta-data/events/maintenance/scheduled" => (200, "[]"),
                _ => (404, "not found"),
            };
            let size = text.len();
            let _ = write!(stream, "HTTP/1.1 {code} X\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{text}");
        }
    });
    url
}

/// The script of a first boot. Its drop ends it.
pub(super) struct FirstBoot(Child);

impl Drop for FirstBoot {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does the part of cloud-init's first boot that the tests need, and starts its script in a network of its own.
pub(super) fn boot(sshd: &Mutex<Sshd>, user_data: &str) -> FirstBoot {
    let data: serde_json::Value = serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    let keys = data["ssh_keys"].as_object().unwrap();
    let key = keys.iter().find(|(name, _)| name.ends_with("_private")).unwrap().1.as_str().unwrap();
    let mut sshd = sshd.lock().unwrap();
    let path = sshd.folder().join("host_key");
    std::fs::remove_file(&path).unwrap();
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(key.as_bytes()).unwrap();
    let logins = data["users"][1]["ssh_authorized_keys"][0].as_str().unwrap();
    std::fs::write(sshd.folder().join("authorized_keys"), format!("{logins}\n")).unwrap();
    let kind = keys.keys().find_map(|name| name.strip_suffix("_private")).unwrap();
    let root = sshd.folder().join("root");
    for name in ["run/wharfinger", "etc/ssh"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let at = root.display();
    sshd.restart_with(&format!("SetEnv WHARFINGER_ROOT={at}\n"));
    let (script, reload) = (root.join("first-contact"), root.join("reload"));
    std::fs::write(&script, data["write_files"][0]["content"].as_str().unwrap()).unwrap();
    let (own, pid) = (sshd.folder().join("host_key"), sshd.processes()[0]);
    let text = format!("#!/bin/sh\ncp {at}/etc/ssh/ssh_host_{kind}_key {} && kill -s HUP {pid}\n", own.display());
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o700).open(&reload).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    drop(file);
    let mut command = Command::new("unshare");
    command.args(["-n", "/bin/sh"]).arg(script).args([kind, &sshd.user, "closed"]);
    command.env("WHARFINGER_ROOT", &root).env("WHARFINGER_RELOAD", reload).stdin(Stdio::null()).stdout(Stdio::null());
    FirstBoot(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn adapter_keeps_the_contract() {
    if skip("adapter_keeps_the_contract") {
        return;
    }
    for fleet in [false, true] {
        let sshd = Arc::new(Mutex::new(Sshd::start()));
        let cloud = Arc::new(FakeCloud::new());
        let mut config: Config = toml::from_str(GOOD).unwrap();
        if fleet {
            config.host_key_type = wharfinger_ssh::HostKeyType::Ecdsa;
        } else {
            config.types.truncate(1);
            config.subnets.pop_last();
        }
        {
            let sshd = sshd.lock().unwrap();
            cloud.at(&sshd.address.to_string());
            config.ssh.port = sshd.port;
            config.ssh.user = Some(sshd.user.clone());
            config.ssh.key = Some(sshd.key());
            config.ssh.work_dir = sshd.folder().join("work").to_string_lossy().into_owned();
            config.ssh.min_free_disk_mb = 1;
        }
        config.imds = imds(cloud.clone());
        config.boot_poll_ms = 100;
        config.reconcile_ms = 500;
        // The thread of the metadata service keeps the account alive, which must not keep the sshd.
        let booted = Arc::downgrade(&sshd);
        let first_boot = Arc::new(Mutex::new(None));
        let of_boot = Arc::downgrade(&first_boot);
        cloud.witness(move |launch| {
            if let (Some(sshd), Some(first_boot)) = (booted.upgrade(), of_boot.upgrade()) {
                *first_boot.lock().unwrap() = Some(boot(&sshd, &launch.user_data));
            }
        });
        let shared: Arc<dyn Cloud> = cloud.clone();
        let adapter = Ec2Adapter::new("spot".into(), config, &Accounts::of(move |_| shared.clone())).unwrap();
        adapter.attend(Arc::new(Books::default()));
        let (pool, resource) = ("spot".to_string(), "res_conformance".to_string());
        let job = ResourceJob { pool, resource, op: 1, item: None, handle: None, parent: None };
        let adapter: Arc<dyn Adapter> = Arc::new(adapter);
        conformance::adapter::all_of_machines(adapter, job).await;
        assert_eq!((cloud.instances().len(), cloud.alive().len()), (1, 0), "one was launched and terminated");
        let launches = cloud.calls("RunInstances") + cloud.calls("CreateFleet");
        assert_eq!(launches, 1, "one request");
    }
}
