//! The first login to an instance, with a real sshd: its host key is replaced, whatever happens in between, and the metadata service is
//! closed to holders.

use super::conformance::support::{Sshd, skip};
use super::conformance::{FirstBoot, boot, imds};
use super::world::{Books, Notes, job};
use crate::cloud::Cloud;
use crate::config::Config;
use crate::config::tests::GOOD;
use crate::fake::FakeCloud;
use crate::record::{KeyStage, Record};
use crate::{Accounts, Ec2Adapter, provision, user_data};
use async_trait::async_trait;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use wharfinger_adapter::{Adapter, Failure, Journal, Verdict};
use wharfinger_ssh::HostKey;
use wharfinger_testkit::{Need, need};

/// An instance with an sshd and a first boot.
struct Instance {
    adapter: Ec2Adapter,
    cloud: Arc<FakeCloud>,
    config: Config,
    first_boot: Arc<Mutex<Option<FirstBoot>>>,
    sshd: Arc<Mutex<Sshd>>,
}

impl Instance {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let sshd = Arc::new(Mutex::new(Sshd::start()));
        let cloud = Arc::new(FakeCloud::new());
        let mut config: Config = toml::from_str(GOOD).unwrap();
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
        change(&mut config);
        let first_boot = Arc::new(Mutex::new(None));
        let (booted, of_boot) = (Arc::downgrade(&sshd), Arc::downgrade(&first_boot));
        cloud.witness(move |launch| {
            if let (Some(sshd), Some(first_boot)) = (booted.upgrade(), of_boot.upgrade()) {
                *first_boot.lock().unwrap() = Some(boot(&sshd, &launch.user_data));
            }
        });
        let adapter = Self::adapter_on(&cloud, &config);
        Self { adapter, cloud, config, first_boot, sshd }
    }

    fn adapter_on(cloud: &Arc<FakeCloud>, config: &Config) -> Ec2Adapter {
        let shared: Arc<dyn Cloud> = cloud.clone();
        let accounts = Accounts::of(move |_| shared.clone());
        let adapter = Ec2Adapter::new("spot".into(), config.clone(), &accounts).unwrap();
        adapter.attend(Arc::new(Books::default()));
        adapter
    }

    /// Restarts the broker with an empty memory.
    fn restart(&mut self) {
        self.adapter = Self::adapter_on(&self.cloud, &self.config);
    }

    async fn provision(&self, journal: &dyn Journal, handle: Option<String>) -> Result<Record, Failure> {
        let made = provision::provision(self.adapter.pool(), &job("res_1", handle), journal).await?;
        Ok(Record::read(Some(&made.handle))?.unwrap())
    }

    /// The public host key that its sshd has now, and that of its user data.
    fn keys(&self, notes: &Notes) -> (String, String) {
        let first = notes.all.lock().unwrap()[0].clone();
        let Some(Record::Launching { host_key, .. }) = Record::read(Some(&first)).unwrap() else { panic!("{first}") };
        let path = self.sshd.lock().unwrap().folder().join("host_key");
        (wharfinger_ssh::public_key(&wharfinger_ssh::public_of(&path).unwrap()).unwrap(), host_key)
    }
}

/// A journal that fails at one write: before the text is stored, or after it.
struct Dies {
    notes: Notes,
    left: AtomicUsize,
    stores: bool,
}

#[async_trait]
impl Journal for Dies {
    async fn write(&self, note: &str) -> Result<(), Failure> {
        let last = self.left.fetch_sub(1, Ordering::Relaxed) == 1;
        if !last || self.stores {
            self.notes.write(note).await?;
        }
        if last { Err(Failure::provider("KILLED", "as the test wants it")) } else { Ok(()) }
    }
}

fn shown(record: &Record) -> (&str, &KeyStage) {
    let host = record.host().expect("a host");
    (&host.host_key, &host.key_stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn n145_the_host_key_of_the_user_data_is_replaced_and_counts_no_more() {
    if skip("n145_the_host_key_of_the_user_data_is_replaced_and_counts_no_more") {
        return;
    }
    let mut instance = Instance::new(|_| {});
    let notes = Notes::default();
    let ready = instance.provision(&notes, None).await.unwrap();
    let (own, bootstrap) = instance.keys(&notes);
    assert_ne!(own, bootstrap);
    assert_eq!(shown(&ready), (own.as_str(), &KeyStage::Last), "the handle has the instance's own key alone");
    let handle = ready.text().unwrap();
    assert!(!handle.contains(&bootstrap), "{handle}");
    let inner = job("res_1", Some(handle)).resource;
    assert!(matches!(instance.adapter.probe(&inner).await.unwrap(), Verdict::Healthy));

    // A machine that has read the user data shows its key, and is not the host.
    let private = {
        let first = notes.all.lock().unwrap()[0].clone();
        let Some(Record::Launching { launch, .. }) = Record::read(Some(&first)).unwrap() else { panic!("{first}") };
        let login = instance.config.ssh.key.as_deref().unwrap();
        wharfinger_ssh::host_key_from(login, &launch.token, instance.config.host_key_type).unwrap().private
    };
    {
        let mut sshd = instance.sshd.lock().unwrap();
        std::fs::write(sshd.folder().join("host_key"), private).unwrap();
        sshd.restart_with("");
    }
    instance.restart();
    let verdict = instance.adapter.probe(&inner).await.unwrap();
    assert!(matches!(verdict, Verdict::Gone { .. }), "{verdict:?}");
    drop(instance.first_boot.lock().unwrap().take());
}

#[tokio::test(flavor = "multi_thread")]
async fn n145_a_broker_that_dies_while_the_key_is_replaced_goes_on_with_either() {
    if skip("n145_a_broker_that_dies_while_the_key_is_replaced_goes_on_with_either") {
        return;
    }
    // Writes: the request with its time, the launch, the own key.
    for (write, stores, stage) in [(3, false, "bootstrap"), (3, true, "next"), (usize::MAX, true, "next")] {
        let mut instance = Instance::new(|_| {});
        let dies = Dies { notes: Notes::default(), left: AtomicUsize::new(write), stores };
        let ended = instance.provision(&dies, None).await;
        // At the last one the key is in use, and the handle of the host is lost.
        assert_eq!(ended.is_err(), write == 3, "{ended:?}");
        let last = dies.notes.note().unwrap();
        let found = match shown(&last).1 {
            KeyStage::Bootstrap => "bootstrap",
            KeyStage::Next(_) => "next",
            KeyStage::Last => "last",
        };
        assert_eq!(found, stage, "write {write}");
        instance.restart();
        let ready = instance.provision(&dies.notes, dies.notes.last()).await.unwrap();
        let (own, bootstrap) = instance.keys(&dies.notes);
        assert_eq!(shown(&ready), (own.as_str(), &KeyStage::Last), "write {write}");
        assert_ne!(own, bootstrap);
        drop(instance.first_boot.lock().unwrap().take());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_metadata_service_stays_open_is_no_host_unless_that_is_configured() {
    if skip("an_instance_whose_metadata_service_stays_open_is_no_host_unless_that_is_configured") {
        return;
    }
    for open in [false, true] {
        let instance = Instance::new(|config| config.open_metadata = open);
        let notes = Notes::default();
        let of_boot = Arc::downgrade(&instance.first_boot);
        let sshd = Arc::downgrade(&instance.sshd);
        instance.cloud.witness(move |launch| {
            if let (Some(sshd), Some(first_boot)) = (sshd.upgrade(), of_boot.upgrade()) {
                let text = launch.user_data.replace("close -4 169.254.169.254", "false");
                *first_boot.lock().unwrap() = Some(boot(&sshd, &text));
            }
        });
        match instance.provision(&notes, None).await {
            Ok(_) => assert!(open, "a host"),
            Err(failure) => {
                assert_eq!((open, failure.reason), (false, "METADATA_OPEN"), "{failure:?}");
                assert!(matches!(notes.note(), Some(Record::Over { .. })), "the instance is ended");
                assert_eq!(instance.cloud.alive().len(), 0);
            }
        }
        drop(instance.first_boot.lock().unwrap().take());
    }
}

/// In a network of its own with routes to the service, the script of the first boot, and then the ways of three users.
const WAYS: &str = r#"
ip link set lo up
ip -4 addr add 10.9.9.9/32 dev lo
ip -6 addr add fd00:9::9/128 dev lo nodad
ip link add link0 type veth peer name link1 && ip link set link1 up && ip link set link0 up
ip -4 route add 169.254.169.254/32 dev link0 src 10.9.9.9
ip -6 route add fd00:ec2::254/128 dev link0 src fd00:9::9
/bin/sh "$1" ed25519 nobody "$2" & boot=$!
until [ -e "$WHARFINGER_ROOT/run/wharfinger-boot/state" ]; do sleep 0.05; done
kill $boot
grep metadata "$WHARFINGER_ROOT/run/wharfinger-boot/state"
for address in 169.254.169.254 fd00:ec2::254 10.9.9.9; do
  for user in 0 "$(id -u nobody)" 64123; do
    if ip route get "$address" uid "$user" >/dev/null 2>&1; then way=reached; else way=closed; fi
    echo "$address $([ "$user" = 64123 ] && echo holder || echo broker) $way"
  done
done
"#;

#[test]
fn n145_root_and_the_broker_alone_have_a_way_to_the_metadata_service() {
    let networks = Command::new("unshare").args(["-n", "ip", "rule"]).output();
    let has = networks.is_ok_and(|output| output.status.success());
    if need(Need::Root, has.then_some(())).is_none() {
        return;
    }
    for setting in ["closed", "open"] {
        let folder = tempfile::tempdir().unwrap();
        for name in ["run/wharfinger", "etc/ssh"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let config: Config = toml::from_str(GOOD).unwrap();
        let key = HostKey { private: "none".into(), public: "ssh-ed25519 AAAA".into() };
        let text = user_data::stored(&config, &key, "ssh-ed25519 BBBB").unwrap();
        let data: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        let script = folder.path().join("first-contact");
        std::fs::write(&script, data["write_files"][0]["content"].as_str().unwrap()).unwrap();
        let output = Command::new("unshare")
            .args(["-n", "/bin/sh", "-c", WAYS, "ways"])
            .arg(script)
            .arg(setting)
            .env("WHARFINGER_ROOT", folder.path())
            .output()
            .unwrap();
        let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let holder = if setting == "closed" { "closed" } else { "reached" };
        let mut expected = format!("metadata {setting}\n");
        for address in ["169.254.169.254", "fd00:ec2::254", "10.9.9.9"] {
            let holder = if address == "10.9.9.9" { "reached" } else { holder };
            for line in ["broker reached", "broker reached", &format!("holder {holder}")] {
                expected += &format!("{address} {line}\n");
            }
        }
        assert_eq!(said, expected, "{complaint}");
    }
}
