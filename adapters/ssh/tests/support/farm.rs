//! A host that `host-setup` has prepared, in a mount namespace of its own: its users, `/etc`, `/run`, `/usr/local/lib` and `/var/lib`
//! are seen by its sshd alone. No other process of the machine has the ids of its users.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its part of it, in a module of its own"
)]

use crate::pool::{config, eventually, host, job, made};
use crate::support::{Sshd, make_key};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use wharfinger_adapter::login::{CertificateSource, LoginJob};
use wharfinger_adapter::{Access, Adapter, CleanJob, EndedHow, HolderWork, PrepareJob, ResourceJob, access};
use wharfinger_ssh::{Certifier, Config, HolderCredential, HostSetup, SshAdapter};

pub struct Farm {
    pub sshd: Sshd,
    pub adapter: SshAdapter,
    pub config: Config,
    pub resource: ResourceJob,
    pub folder: tempfile::TempDir,
    /// The first id of the users of slots.
    pub first_id: u32,
}

/// The settings of a host before it runs.
pub struct Plan {
    folder: tempfile::TempDir,
    config: Config,
    first_id: u32,
    /// Commands after the set-up, in the namespace of the host.
    pub after: String,
}

impl Plan {
    /// A pool with an authority; `lines` are added to `[pool.ssh.ca]`.
    pub fn new(lines: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not below /tmp, which is swept of what the users of slots own: the homes are in it.
        let folder =
            tempfile::Builder::new().prefix("wharfinger-farm-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        make_key(&folder.path().join("ca"), "ed25519");
        // The login of a user is ended by its name.
        let number = std::process::id() * 50 + count % 50;
        let letters: String =
            (0..6).map(|at| char::from(b'a' + u8::try_from(number / 26_u32.pow(at) % 26).unwrap())).collect();
        let user =
            if lines.contains("user =") { String::new() } else { format!("user = \"wfr_{letters}_{{slot}}\"\n") };
        let text = format!("key = {:?}\n{user}{lines}", folder.path().join("ca"));
        let ca = Some(toml::from_str(&text).unwrap());
        let config = Config { user: Some("root".into()), ca, ..Config::default() };
        let first_id = 1_100_000_000 + std::process::id() % 100_000 * 1000 + count % 50 * 20;
        Self { folder, config, first_id, after: String::new() }
    }

    /// The output of `host-setup`.
    pub fn script(&self) -> String {
        HostSetup::of("farm", &self.config, 2).unwrap().script().unwrap()
    }

    /// The output of `host-setup --undo`.
    pub fn undo(&self) -> String {
        HostSetup::of("farm", &self.config, 2).unwrap().undo()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Commands that give the host its own files.
    fn prelude(&self) -> String {
        let script = self.script();
        std::fs::write(self.folder.path().join("setup.sh"), script).unwrap();
        let own = self.folder.path().display();
        format!(
            "set -e\ncd {own}\nmkdir -p etc run lib var\n[ -e etc/passwd ] || cp -a /etc/. etc/\nmount --bind etc /etc\n\
             mount --bind run /run\nmount --bind lib /usr/local/lib\nmount --bind var /var/lib\nssh-keygen -A >/dev/null\n\
             sed -i -e '/^SYS_UID_M/d' -e '/^SYS_GID_M/d' /etc/login.defs\n\
             printf 'SYS_UID_MIN {first}\\nSYS_UID_MAX {last}\\nSYS_GID_MIN {first}\\nSYS_GID_MAX {last}\\n' >>/etc/login.defs\n\
             export WHARFINGER_NO_RELOAD=yes\n/bin/sh setup.sh >setup.log 2>&1 || {{ cat setup.log >&2; exit 1; }}\n\
             touch /etc/ssh/sshd_config.d/10-wharfinger-farm.conf\nset +e\n{after}\ncd /\n",
            first = self.first_id,
            last = self.first_id + 19,
            after = self.after,
        )
    }

    /// Starts the host, which has no resource yet.
    pub fn start(mut self) -> (Sshd, Config, tempfile::TempDir, u32) {
        let options = "Include /etc/ssh/sshd_config.d/10-wharfinger-farm.conf\nSubsystem sftp internal-sftp\n";
        let sshd = Sshd::start_in(&self.prelude(), options, None);
        // The users of slots pass it on the way to their fences.
        for path in [sshd.folder(), self.folder.path()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let own = config(&sshd, vec![host(&sshd, "alpha")]);
        self.config = Config { ca: self.config.ca, user: Some("root".into()), ..own };
        (sshd, self.config, self.folder, self.first_id)
    }
}

impl Farm {
    /// A host with two slots, made ready.
    pub async fn start(lines: &str) -> Self {
        Self::start_as(Plan::new(lines)).await
    }

    pub async fn start_as(plan: Plan) -> Self {
        let (sshd, config, folder, first_id) = plan.start();
        let adapter = SshAdapter::new("farm".into(), config.clone()).unwrap();
        let (resource, _) = made(&adapter, job("res_1")).await;
        Self { sshd, adapter, config, resource, folder, first_id }
    }

    /// Gives a slot to a lease. Returns the access of the holder.
    pub async fn lease(&self, slot: u32, token: u64) -> Holder<'_> {
        let work = HolderWork { lease: format!("lse_{token}"), slot, token, ..HolderWork::default() };
        let prepare = PrepareJob { resource: self.resource.clone(), work: work.clone(), child: None };
        let access = self.adapter.prepare(&prepare).await.unwrap().access;
        let holder = Holder { farm: self, work, access };
        holder.log_in_anew().await;
        holder
    }

    /// Ends a lease.
    pub async fn end(&self, work: &HolderWork) {
        let clean = CleanJob { resource: self.resource.clone(), work: work.clone(), ended: EndedHow::Ok };
        self.adapter.clean(&clean).await.unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The user of a slot, or of the canary (`x`).
    pub fn user(&self, slot: &str) -> String {
        self.config.ca.as_ref().unwrap().user.replace("{slot}", slot)
    }

    /// The home of a slot.
    pub fn home(&self, slot: &str) -> String {
        format!("/var/lib/wharfinger/slots/{}", self.user(slot))
    }

    /// Living processes of the users of slots.
    pub fn processes(&self) -> Vec<u32> {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let id = |line: &str| line.split_whitespace().nth(1)?.parse::<u32>().ok();
                let uid = status.lines().find(|line| line.starts_with("Uid:")).and_then(id);
                let zombie = status.lines().any(|line| line.starts_with("State:\tZ"));
                !zombie && uid.is_some_and(|uid| (self.first_id..self.first_id + 20).contains(&uid))
            })
            .collect()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
        }
    }
}

/// A holder with plain OpenSSH.
pub struct Holder<'f> {
    pub farm: &'f Farm,
    pub work: HolderWork,
    pub access: Access,
}

impl Holder<'_> {
    pub fn dir(&self) -> PathBuf {
        self.farm.path(&self.work.lease)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn user(&self) -> &str {
        &self.access[access::USER]
    }

    /// Asks for a certificate, as `Login` does, and writes it beside a new key.
    pub async fn log_in_anew(&self) -> HolderCredential {
        let credential = HolderCredential::make().unwrap();
        std::fs::create_dir_all(self.dir()).unwrap();
        let now = u64::try_from(wharfinger_adapter::clock::wall_ms() / 1000).unwrap();
        let job = LoginJob {
            lease: self.work.lease.clone(),
            token: self.work.token,
            pool: "farm".into(),
            tenant: "web".into(),
            public_key: credential.public_key().unwrap(),
            now,
            expires_at: now + 300,
            access: self.access.clone(),
        };
        let signed = Certifier::of(&self.farm.config).unwrap().certify(&job).await.unwrap();
        credential.take(&signed.text, &self.work.lease, self.work.token).unwrap();
        write(&self.path("key"), &credential.private_key().unwrap());
        write(&self.path("key.pub"), &credential.public_key().unwrap());
        write(&self.path("key-cert.pub"), &signed.text);
        credential
    }

    /// The options of every OpenSSH client, as `wharfinger ssh-config` writes them.
    pub fn options(&self) -> Vec<String> {
        let sshd = &self.farm.sshd;
        write(&self.path("known_hosts"), &format!("host {}\n", sshd.host_key()));
        let text = format!(
            "Host alpha\nHostName {}\nPort {}\nUser {}\nIdentityFile {}\nCertificateFile {}\nUserKnownHostsFile {}\n\
             HostKeyAlias host\nIdentitiesOnly yes\nStrictHostKeyChecking yes\nGlobalKnownHostsFile /dev/null\nBatchMode yes\n\
             LogLevel ERROR\n",
            sshd.address,
            sshd.port,
            self.user(),
            self.path("key").display(),
            self.path("key-cert.pub").display(),
            self.path("known_hosts").display(),
        );
        write(&self.path("config"), &text);
        vec!["-F".into(), self.path("config").display().to_string()]
    }

    /// A client of OpenSSH, with options before the host.
    pub fn client(&self, program: &str) -> Command {
        // A client that hangs fails its test.
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", "50", program])
            .args(self.options())
            .env_remove("SSH_AUTH_SOCK")
            .stdin(std::process::Stdio::null());
        command
    }

    pub fn ssh(&self, words: &[&str]) -> Output {
        self.client("ssh").arg("alpha").args(words).output().unwrap()
    }

    /// A connection that stays open and that others share by its socket. One that ends before it is up, as on a busy machine,
    /// is begun again; its errors are in the output of the test.
    pub async fn master(&self, socket: &Path) -> Child {
        let control = |words: &[&str]| {
            let mut command = self.client("ssh");
            command.arg("-S").arg(socket).args(words);
            command
        };
        let begin = || control(&["-M", "-N", "alpha"]).spawn().unwrap();
        let mut master = begin();
        eventually("the master is up", async || {
            if let Some(status) = master.try_wait().unwrap() {
                println!("the master ended: {status}");
                master = begin();
            }
            control(&["-O", "check", "alpha"]).output().unwrap().status.success()
        })
        .await;
        master
    }

    /// Whether this certificate lets a user in.
    pub fn is_let_in(&self, user: &str) -> bool {
        let output = self.client("ssh").args(["-l", user, "alpha", "true"]).output().unwrap();
        // 255: ssh itself failed. `enter` may refuse after the login.
        output.status.code() != Some(255)
    }

    /// Puts another certificate in the place of the holder's own: the words of ssh-keygen behind `-s KEY`.
    pub fn sign(&self, key: &Path, words: &[&str]) {
        let _ = std::fs::remove_file(self.path("key-cert.pub"));
        let mut command = Command::new("ssh-keygen");
        command.arg("-q").arg("-s").arg(key).args(["-I", "test"]).args(words).arg(self.path("key.pub"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_string()
}
