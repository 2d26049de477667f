//! Holders log in with certificates of their leases: `host-setup`, `run`, `ssh`, `ssh-config`, `exec --local`, on a real sshd.

use crate::sshd::{Sshd, make_key, skip};
use crate::support::{Server, repository, text};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A server, and a host that `wharfinger host-setup` has prepared in a mount namespace of its own.
struct Farm {
    server: Server,
    sshd: Sshd,
    work: tempfile::TempDir,
    own: tempfile::TempDir,
}

/// The pools: hosts, and copies on them if the holders' user is the host's.
fn pools(sshd: Option<&Sshd>, work: &Path, ca: &str) -> String {
    let (address, port, key, host_key) = match sshd {
        Some(sshd) => (sshd.address.to_string(), sshd.port, sshd.key().display().to_string(), sshd.host_key()),
        None => {
            ("127.0.0.1".into(), 22, "{folder}/ca".into(), std::fs::read_to_string(work.join("pinned.pub")).unwrap())
        }
    };
    let copies = "[[pool]]\nname = \"copies\"\nadapter = \"copies\"\non = \"hosts\"\nmax = 2\n[pool.copies]\nrepository = \"{folder}/origin\"\n";
    format!(
        "[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\nslots = 2\n[pool.ssh]\nwork_dir = \"{}\"\nuser = \"root\"\nkey = \"{key}\"\n\
         [pool.ssh.ca]\nkey = \"{{folder}}/user_ca\"\n{ca}\n[[pool.ssh.host]]\nname = \"a\"\naddress = \"{address}\"\nport = {port}\n\
         host_key = \"{}\"\n{}",
        work.join("work").display(),
        host_key.trim(),
        if ca.contains("{slot}") { "" } else { copies },
    )
}

/// Commands that give a machine its own files in this folder, and numbers of users of its own.
fn own_files(own: &Path, offset: u32) -> String {
    let first = 1_300_000_000 + std::process::id() % 4_000_000 * 100 + offset;
    format!(
        "set -e\ncd {own}\nmkdir -p etc run lib var\n[ -e etc/passwd ] || cp -a /etc/. etc/\nmount --bind etc /etc\n\
             mount --bind run /run\nmount --bind lib /usr/local/lib\nmount --bind var /var/lib\nssh-keygen -A >/dev/null\n\
             sed -i -e '/^SYS_UID_M/d' -e '/^SYS_GID_M/d' /etc/login.defs\n\
             printf 'SYS_UID_MIN {first}\\nSYS_UID_MAX {last}\\nSYS_GID_MIN {first}\\nSYS_GID_MAX {last}\\n' >>/etc/login.defs\n",
        own = own.display(),
        last = first + 19,
    )
}

impl Farm {
    fn start(ca: &str) -> Self {
        let mut server = Server::prepared("w.db");
        let (work, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&work, &own] {
            std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        make_key(&server.folder.path().join("user_ca"), "ed25519");
        make_key(&server.folder.path().join("ca"), "ed25519");
        make_key(&work.path().join("pinned"), "ed25519");
        repository(&server.folder.path().join("origin"));
        server.configure("", &pools(None, work.path(), ca));
        let config = server.config().display().to_string();
        let script = server.cli(&["host-setup", &config]);
        assert!(script.status.success(), "{}", text(&script));
        std::fs::write(own.path().join("setup.sh"), &script.stdout).unwrap();
        let host = own_files(own.path(), u32::from(ca.contains("{slot}")) * 20);
        let prelude = format!("{host}WHARFINGER_NO_RELOAD=yes /bin/sh setup.sh >&2\nset +e\ncd /\n");
        let options = "Include /etc/ssh/sshd_config.d/10-wharfinger-hosts.conf\nSubsystem sftp internal-sftp\n";
        let sshd = Sshd::start_in(&prelude, options, None);
        server.configure("", &pools(Some(&sshd), work.path(), ca));
        server.run();
        Self { server, sshd, work, own }
    }

    fn lease(&self) -> String {
        let leased = self.server.json(&["lease", "--pool", "hosts", "--ttl", "10m", "--wait", "60s"]);
        assert_eq!(leased["lease"]["state"], "ACTIVE", "{leased}");
        leased["lease"]["id"].as_str().unwrap().to_string()
    }
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// A prefix of users that no other test has.
fn users() -> String {
    let number = std::process::id();
    let letter = |at: u32| char::from(b'a' + u8::try_from(number / 26_u32.pow(at) % 26).unwrap());
    format!("wfr_{}_{{slot}}", (0..6).map(letter).collect::<String>())
}

#[test]
fn holders_log_in_with_certificates_of_their_leases() {
    if skip("holders_log_in_with_certificates_of_their_leases") {
        return;
    }
    let users = users();
    let farm = Farm::start(&format!("user = \"{users}\""));
    let (server, first) = (&farm.server, users.replace("{slot}", "0"));
    let checked = server.cli(&["check-config", "--connect", &server.config().display().to_string()]);
    assert_eq!(checked.status.code(), Some(0), "{}\n{}", text(&checked), farm.sshd.log());

    let script = "id -un; pwd; echo $WHARFINGER_LEASE; exit 7";
    let output = server.cli(&["run", "--pool", "hosts", "--no-check", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{}\n{}", text(&output), farm.sshd.log());
    let lines: Vec<String> = printed(&output).lines().map(String::from).collect();
    assert_eq!(lines[..2], [first.clone(), format!("/var/lib/wharfinger/slots/{first}")], "{lines:?}");
    assert!(lines[2].starts_with("lse_"), "{lines:?}");
    let dump = std::fs::read(server.folder.path().join("w.db")).unwrap();
    assert!(!dump.windows(19).any(|part| part == b"OPENSSH PRIVATE KEY"), "nothing is stored");

    // ssh, and plain OpenSSH by the printed configuration.
    let lease = farm.lease();
    let output = server.cli(&["ssh", &lease, "--", "sh", "-c", "echo \"$WHARFINGER_LEASE it's\"; exit 5"]);
    assert_eq!((output.status.code(), printed(&output)), (Some(5), format!("{lease} it's")), "{}", text(&output));
    let output = server.cli(&["ssh-config", &lease]);
    assert!(output.status.success(), "{}", text(&output));
    let config = farm.own.path().join("config");
    std::fs::write(&config, &output.stdout).unwrap();
    let plain = |program: &str, words: &[&str]| {
        Command::new(program).arg("-F").arg(&config).args(words).stdin(Stdio::null()).output().unwrap()
    };
    let output = plain("ssh", &[&lease, "echo $WHARFINGER_LEASE"]);
    assert_eq!(printed(&output), lease, "{}", text(&output));
    let output = plain("scp", &["-q", &config.display().to_string(), &format!("{lease}:copied")]);
    assert!(output.status.success(), "{}", text(&output));
    // At each connection the certificate is renewed once half of its life is over.
    let printed_config = std::fs::read_to_string(&config).unwrap();
    let quoted = printed_config.lines().find(|line| line.contains("CertificateFile")).unwrap();
    let certificate = Path::new(quoted.split('"').nth(1).unwrap()).to_path_buf();
    let folder = certificate.parent().unwrap().to_path_buf();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&folder).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    let before = std::fs::read_to_string(&certificate).unwrap();
    assert!(plain("ssh", &[&lease, "test -f copied"]).status.success());
    assert_eq!(std::fs::read_to_string(&certificate).unwrap(), before, "it is young");
    std::fs::write(folder.join("renew_at"), "1").unwrap();
    assert!(plain("ssh", &[&lease, "true"]).status.success());
    assert_ne!(std::fs::read_to_string(&certificate).unwrap(), before, "it was renewed");
    // A command here that works there.
    let line = "ssh -F \"$WHARFINGER_SSH_CONFIG\" \"$WHARFINGER_LEASE\" id -un";
    let output = server.cli(&["exec", "--local", "--pool", "hosts", "--", "sh", "-c", line]);
    assert!(printed(&output).starts_with(&users.replace("{slot}", "")), "{}", text(&output));

    // After the end nothing of it opens anything, and its files go.
    assert!(server.cli(&["release", &lease, "--outcome", "ok"]).status.success());
    server.wait("the lease to be cleaned", || (!plain("ssh", &[&lease, "true"]).status.success()).then_some(()));
    let over = server.cli(&["ssh-config", &lease]);
    assert!(!over.status.success() && text(&over).contains("RELEASED"), "{}", text(&over));
    assert!(!folder.exists(), "the key of a lease that is over does not stay");
    let fleeting: Vec<_> = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().collect();
    let left = fleeting.iter().filter(|entry| entry.file_name().to_string_lossy().contains(&lease)).count();
    assert_eq!(left, 0, "no files of ssh stay");
}

#[test]
fn working_copies_are_entered_with_certificates_too_where_holders_are_the_hosts_user() {
    if skip("working_copies_are_entered_with_certificates_too_where_holders_are_the_hosts_user") {
        return;
    }
    let farm = Farm::start("user = \"root\"");
    let server = &farm.server;
    let output =
        server.cli(&["run", "--pool", "copies", "--", "sh", "-c", "cat hello.txt; echo $WHARFINGER_LEASE; pwd"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", text(&output), farm.sshd.log());
    let lines: Vec<String> = printed(&output).lines().map(String::from).collect();
    assert_eq!(lines[0], "hello");
    assert!(lines[2].contains("/copies/"), "{lines:?}");
    assert!(farm.sshd.log().contains(&format!("ID wharfinger/hosts/{}/default", lines[1])), "{}", farm.sshd.log());
    // The lists on the host are empty again.
    let principals = farm.own.path().join("run/wharfinger-logins/principals/root");
    server.wait("the login to be closed", || (!principals.exists()).then_some(()));
    assert!(farm.work.path().exists());
}

#[test]
fn a_pool_of_copies_is_refused_where_each_slot_has_a_user() {
    let server = Server::prepared("w.db");
    let work = tempfile::tempdir().unwrap();
    for name in ["user_ca", "ca"] {
        make_key(&server.folder.path().join(name), "ed25519");
    }
    make_key(&work.path().join("pinned"), "ed25519");
    let check = |ca: &str| {
        let pools = pools(None, work.path(), "").replace("[pool.ssh.ca]\n", &format!("[pool.ssh.ca]\n{ca}\n"));
        server.configure("", &pools);
        server.cli(&["check-config", &server.config().display().to_string()])
    };
    let refused = check("");
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused));
    assert!(
        text(&refused).contains("log in as other users than the pool's, who may not write in working copies"),
        "{}",
        text(&refused)
    );
    assert_eq!(check("user = \"other\"").status.code(), Some(78));
    assert!(check("user = \"root\"").status.success());
}

/// `host-setup --apply`: the machine prepares itself, twice, and takes it all away.
#[test]
fn the_set_up_is_applied_on_the_machine_itself_and_taken_away_again() {
    if skip("the_set_up_is_applied_on_the_machine_itself_and_taken_away_again") {
        return;
    }
    let server = Server::prepared("w.db");
    let (work, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["user_ca", "ca"] {
        make_key(&server.folder.path().join(name), "ed25519");
    }
    make_key(&work.path().join("pinned"), "ed25519");
    let users = users();
    server.configure("", &pools(None, work.path(), &format!("user = \"{users}\"")));
    let slot = users.replace("{slot}", "0");
    let files = "/etc/ssh/sshd_config.d/10-wharfinger-hosts.conf /etc/ssh/wharfinger_hosts_ca.pub /usr/local/lib/wharfinger/enter \
                 /usr/local/lib/wharfinger/slot /usr/local/lib/wharfinger/users";
    let rules = |user: &str| {
        format!(
            "/usr/sbin/sshd -T -C user={user},host=h,addr=127.0.0.1 | \
             grep -iE '^(trustedusercakeys|authorizedkeysfile|authorizedprincipalsfile) ' || true"
        )
    };
    let script = format!(
        "{host}mkdir -p /run/sshd\n\
         echo == first; \"$1\" host-setup --apply \"$2\"\n\
         echo == again; \"$1\" host-setup --apply \"$2\"\n\
         echo == files; id -un {slot}; stat -c '%U %a %n' {files}\n\
         echo == slot; {of_slot}\n\
         echo == root; {of_root}\n\
         sleep 600 >/dev/null 2>&1 & echo $! >/run/sshd.pid\n\
         echo == undone; \"$1\" host-setup --undo --apply \"$2\"; ls -d {files} 2>/dev/null || true\n\
         id -un {slot} 2>/dev/null || echo nobody\n\
         kill \"$(cat /run/sshd.pid)\" 2>/dev/null || true\n\
         echo == end\n",
        host = own_files(own.path(), 60),
        of_slot = rules(&slot),
        of_root = rules("root"),
    );
    let output = Command::new("unshare")
        .args(["-m", "/bin/sh", "-c", &script, "setup", env!("CARGO_BIN_EXE_wharfinger")])
        .arg(server.config())
        .env("WHARFINGER_NO_RELOAD", "yes")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = printed(&output);
    let part = |name: &str| {
        let (_, rest) = said.split_once(&format!("== {name}\n")).unwrap_or_else(|| panic!("{name}: {}", text(&output)));
        rest.split("== ").next().unwrap().trim().to_string()
    };
    assert!(part("first").contains(&format!("made:      user {slot}")), "{}", text(&output));
    let again = part("again");
    assert!(again.contains("as it was") && !again.contains("written:") && !again.contains("made:"), "{again}");
    let found = part("files");
    assert!(found.starts_with(&slot) && found.lines().skip(1).all(|line| line.starts_with("root ")), "{found}");
    assert!(found.contains("root 755 /usr/local/lib/wharfinger/slot"), "{found}");
    // The users of slots log in by certificate alone, and root as before.
    let of_slot = part("slot");
    assert!(
        of_slot.contains("/etc/ssh/wharfinger_hosts_ca.pub") && of_slot.contains("authorizedkeysfile none"),
        "{of_slot}"
    );
    assert!(!part("root").contains("wharfinger"), "{}", part("root"));
    let undone = part("undone");
    assert!(undone.ends_with("nobody") && !undone.contains("/wharfinger"), "{undone}");
    // The machine of the test has none of it.
    assert!(!Path::new("/etc/ssh/wharfinger_hosts_ca.pub").exists());
}
