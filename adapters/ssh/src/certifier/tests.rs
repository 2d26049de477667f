use super::*;
use crate::authority::{KeyType, Permit};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, PrivateKey};
use std::os::unix::fs::PermissionsExt;
use wharfinger_adapter::Blame;

struct Farm {
    folder: tempfile::TempDir,
    config: Config,
}

fn key_pair() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

fn line(key: &PrivateKey) -> String {
    key.public_key().to_openssh().unwrap()
}

impl Farm {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, key_pair().to_openssh(LineEnding::LF).unwrap()).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            path
        };
        let authority = Authority { key: Some(write("ca")), ..Authority::known_by("wfslot{slot}".into()) };
        let config =
            Config { key: Some(write("broker")), user: Some("root".into()), ca: Some(authority), ..Config::default() };
        Self { folder, config }
    }

    fn with(mut self, change: impl FnOnce(&mut Authority)) -> Self {
        change(self.config.ca.as_mut().unwrap());
        self
    }

    fn ca(&self) -> &Authority {
        self.config.ca.as_ref().unwrap()
    }

    async fn certify(&self, job: &LoginJob) -> Result<Certificate, Failure> {
        let signed = Certifier::of(&self.config).unwrap().certify(job).await?;
        Ok(Certificate::from_openssh(&signed.text).unwrap())
    }

    fn problems(&self) -> Vec<String> {
        let found = self.config.authority_problems();
        let shown = |text: String| text.replace(&self.folder.path().display().to_string(), "F");
        found
            .into_iter()
            .map(|problem| shown(format!("{:?}: {}; {}", problem.path, problem.message, problem.remedy)))
            .collect()
    }
}

fn job(public_key: &str) -> LoginJob {
    LoginJob {
        lease: "lse_1".into(),
        token: 1017,
        pool: "farm".into(),
        tenant: "web\nteam".into(),
        public_key: public_key.into(),
        now: 100_000,
        expires_at: 100_300,
        access: Default::default(),
    }
}

#[tokio::test]
async fn a_certificate_is_for_one_lease_and_ends_with_it() {
    let farm = Farm::make();
    let holder = key_pair();
    let signed = farm.certify(&job(&line(&holder))).await.unwrap();
    assert_eq!(signed.public_key(), holder.public_key().key_data());
    assert_eq!((signed.serial(), signed.valid_principals()), (1017, &["lse_1".to_string()][..]));
    assert_eq!((signed.valid_after(), signed.valid_before()), (99_940, 100_360), "a minute on both sides");
    assert_eq!(signed.cert_type(), CertType::User);
    assert_eq!(signed.key_id(), "wharfinger/farm/lse_1/web_team", "no line break gets into a log");
    assert!(signed.extensions().is_empty() && signed.critical_options().is_empty(), "nothing that is not granted");
    assert_eq!(signed.signature_key(), farm.ca().public().unwrap().key_data());
    signed.verify_signature().unwrap();
}

#[tokio::test]
async fn a_certificate_lives_no_longer_than_the_pool_says_and_has_the_extensions_of_the_pool() {
    let permit = vec![Permit::PortForwarding, Permit::Pty, Permit::Pty];
    let farm = Farm::make().with(|ca| (ca.cert_max_ms, ca.permit) = (60_000, permit));
    let holder = line(&key_pair());
    let signed = farm.certify(&job(&holder)).await.unwrap();
    assert_eq!(signed.valid_before(), 100_060);
    let names: Vec<&str> = signed.extensions().keys().map(String::as_str).collect();
    assert_eq!(names, ["permit-port-forwarding", "permit-pty"]);
    assert_eq!(farm.ca().options(), ",pty,port-forwarding");
    // A lease whose end is past, and not acted on yet.
    let late = LoginJob { expires_at: 90_000, ..job(&holder) };
    let signed = farm.certify(&late).await.unwrap();
    assert!(signed.valid_before() <= 100_001, "{}", signed.valid_before());
}

#[tokio::test]
async fn keys_that_are_something_else_get_no_certificate() {
    let farm = Farm::make();
    let host = key_pair();
    let mut config = farm.config.clone();
    let trusted = key_pair();
    config.ca.as_mut().unwrap().trusted = vec![line(&trusted)];
    config.hosts = vec![crate::config::Host {
        name: "alpha".into(),
        address: "192.0.2.7".into(),
        port: None,
        user: None,
        key: None,
        host_key: line(&host),
        labels: Default::default(),
        slots: None,
        enabled: true,
        disabled_reason: None,
        proxy_command: None,
    }];
    let farm = Farm { folder: farm.folder, config };
    let read = |name: &str| line(&key::read_private(&farm.folder.path().join(name)).unwrap());
    let bought = key_pair();
    let holder = line(&key_pair());
    let certificate = farm.certify(&job(&holder)).await.unwrap().to_openssh().unwrap();
    let ecdsa = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
    let ecdsa = line(&ecdsa.unwrap());
    let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQC7";
    let huge = format!("{holder} {}", "x".repeat(2000));
    for (text, why) in [
        (read("ca"), "a key of the broker or of a host"),
        (read("broker"), "a key of the broker or of a host"),
        (line(&host), "a key of the broker or of a host"),
        (line(&trusted), "a key of the broker or of a host"),
        (line(&bought), "a key of the broker or of a host"),
        (ecdsa.clone(), "get no certificate here; use ssh-ed25519"),
        (rsa.to_string(), "this is no public key"),
        (certificate, "this is a certificate"),
        (String::new(), "a type and base64"),
        ("ssh-ed25519".into(), "a type and base64"),
        ("ssh-ed25519 AAAA".into(), "this is no public key"),
        (format!("restrict {holder}"), "this is no public key"),
        (format!("{holder}\n{holder}"), "one line"),
        (format!("{holder}\u{1b}[2J"), "one line"),
        (huge, "one line"),
    ] {
        let access = [("host_key".to_string(), line(&bought))].into();
        let failure = farm.certify(&LoginJob { access, ..job(&text) }).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Request, "KEY_REFUSED"), "{text}: {failure}");
        assert!(failure.message.contains(why), "{text}: {failure}");
    }
    // With a comment, and with the line break of its file.
    farm.certify(&job(&format!("{holder} me@here\n"))).await.unwrap();
    let farm = farm.with(|ca| ca.key_types.push(KeyType::EcdsaP256));
    farm.certify(&job(&ecdsa)).await.unwrap();
}

#[tokio::test]
async fn an_authority_that_cannot_sign_is_the_operators() {
    let farm = Farm::make();
    let path = farm.ca().key.clone().unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let holder = line(&key_pair());
    let failure = farm.certify(&job(&holder)).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "CA_UNUSABLE"), "{failure}");
    assert!(failure.message.contains("0644"), "{failure}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    farm.certify(&job(&holder)).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(farm.certify(&job(&holder)).await.unwrap_err().reason, "CA_UNUSABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_signs_in_place_of_a_file() {
    use std::process::{Command, Stdio};
    let farm = Farm::make();
    let (path, socket) = (farm.ca().key.clone().unwrap(), farm.folder.path().join("agent"));
    let mut agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let begun = tokio::time::Instant::now();
    let added = loop {
        let added = Command::new("ssh-add").arg(&path).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null()).status();
        if added.is_ok_and(|status| status.success()) {
            break true;
        }
        if begun.elapsed() > std::time::Duration::from_secs(20) {
            break false;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let public = line(&key::read_private(&path).unwrap());
    let (own, other) = (Some(public), Some(line(&key_pair())));
    let farm = farm.with(|ca| (ca.key, ca.agent, ca.public_key) = (None, Some(socket), own));
    let holder = line(&key_pair());
    let signed = farm.certify(&job(&holder)).await;
    // A key that the agent does not hold, and an agent that is gone.
    let farm = farm.with(|ca| ca.public_key = other);
    let strange = farm.certify(&job(&holder)).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    let gone = farm.certify(&job(&holder)).await;
    assert!(added, "the agent takes the key");
    let signed = signed.unwrap();
    signed.verify_signature().unwrap();
    assert_eq!(signed.valid_principals(), ["lse_1"]);
    assert_eq!(strange.unwrap_err().reason, "CA_UNUSABLE");
    assert_eq!(gone.unwrap_err().reason, "CA_UNUSABLE");
}

#[test]
fn mistakes_are_reported_with_their_remedies() {
    assert_eq!(Farm::make().problems(), Vec::<String>::new());
    let one = |farm: Farm, wanted: &str| {
        let found = farm.problems();
        assert!(found.len() == 1 && found[0].contains(wanted), "{wanted}: {found:?}");
    };
    one(Farm::make().with(|ca| ca.key = None), "neither `key` nor `agent`");
    one(Farm::make().with(|ca| ca.agent = Some("/run/agent".into())), "both `key` and `agent`");
    one(Farm::make().with(|ca| (ca.key, ca.agent) = (None, Some("/run/agent".into()))), "add public_key");
    one(Farm::make().with(|ca| ca.public_key = Some("x".into())), "`public_key` is for an agent");
    one(Farm::make().with(|ca| ca.trusted = vec!["ssh-rsa AAAA".into()]), "`trusted`");
    one(Farm::make().with(|ca| ca.user = "wf slot".into()), "no user name for holders");
    one(Farm::make().with(|ca| ca.user = "wf{slot}x".into()), "no user name for holders");
    one(Farm::make().with(|ca| ca.user = "a1{slot}".into()), "no user name for holders");
    one(Farm::make().with(|ca| ca.user = "-x{slot}".into()), "no user name for holders");
    one(Farm::make().with(|ca| ca.homes = "homes".into()), "absolute path");
    one(Farm::make().with(|ca| ca.homes = "/".into()), "absolute path");
    one(Farm::make().with(|ca| ca.cert_max_ms = 1), "use 60000 to 86400000");
    one(Farm::make().with(|ca| ca.lease_max_ms = 1), "use 60000 to");
    one(Farm::make().with(|ca| ca.key_types = Vec::new()), "no type of key");
    let mut farm = Farm::make();
    farm.config.holder_key = farm.config.key.clone();
    one(farm, "both a `holder_key`");
    let mut farm = Farm::make();
    farm.config.key = farm.ca().key.clone();
    one(farm, "also the key that the broker logs in with");
    let farm = Farm::make();
    std::fs::set_permissions(farm.ca().key.as_ref().unwrap(), PermissionsExt::from_mode(0o644)).unwrap();
    one(farm, "F/ca has mode 0644");
}

#[test]
fn users_have_the_numbers_of_slots() {
    let farm = Farm::make();
    let ca = farm.ca();
    assert_eq!((ca.user_of(3), ca.canary()), ("wfslot3".into(), "wfslotx".into()));
    for (name, is) in
        [("wfslot0", true), ("wfslot12", true), ("wfslot", false), ("wfslotx", false), ("wfslot1a", false)]
    {
        assert_eq!(ca.is_slot_user(name), is, "{name}");
    }
    let one = farm.with(|ca| ca.user = "build".into());
    assert_eq!((one.ca().user_of(3), one.ca().canary()), ("build".into(), "build".into()));
    assert!(!one.ca().has_slot_users() && !one.ca().is_slot_user("build"));
}
