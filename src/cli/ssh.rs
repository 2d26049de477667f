//! `ssh`: a shell on a leased or kept resource, in its tree, with the host key that the server knows.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::run::env::KeyFile;
use super::run::place::{own_key, same_machine};
use super::select::{Named, Placed, named, placed};
use super::text;
use crate::pb;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use wharfinger_adapter::{access, quote};

/// `ssh`.
#[derive(Args, Debug)]
pub(crate) struct SshArgs {
    /// Which: an active lease, a resource, or a machine
    #[arg(value_name = "LEASE|RESOURCE|MACHINE")]
    place: String,
    /// Private key to log in with; without it the one that comes with the lease, then ~/.ssh/id_ed25519
    #[arg(long, short, value_name = "KEYFILE")]
    identity: Option<PathBuf>,
    /// What to run, after --; without it, a login shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Goes to the directory that is its first argument, and becomes the command that follows, or a login shell.
const IN_TREE: &str = r#"cd "$1" && shift && if [ $# -gt 0 ]; then exec "$@"; else exec "${SHELL:-/bin/sh}" -l; fi"#;

/// Opens it, and ends with its exit code.
pub(crate) async fn ssh(context: &Context, args: SshArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let (lease, id, access) = match named(&args.place) {
        Ok(Named::Lease(id)) => {
            let lease = client.get(&id).await.map_err(|error| context.failure(error))?;
            if !lease.may_work() {
                let failure = Failure::new(Exit::BadData, format!("lease {id} is {}", text::lease_state(&lease)));
                return Err(failure.remedy("name the resource that was kept: wharfinger resources"));
            }
            let access = lease.access.clone();
            (Some(lease), id, access)
        }
        Ok(Named::Resource(_)) | Err(_) => {
            let place = placed(&args.place).map_err(|why| Failure::new(Exit::BadData, why))?;
            let (resource_id, machine) = Placed::parts(place);
            let request = pb::GetResourceRequest { resource_id, machine, ..pb::GetResourceRequest::default() };
            let resource = context.ask(client.admin().get_resource(request)).await?.resource.unwrap_or_default();
            (None, resource.id, resource.access)
        }
    };
    let pairs = access.as_ref().map(pb::Access::pairs).unwrap_or_default();
    let known = |key: &str| pairs.get(key).cloned().filter(|value| !value.is_empty());
    let path = known(access::PATH);
    context.ui.event(&format!(
        "{} on {}{}: what you change here is not kept apart",
        id,
        text::machine(access.as_ref()),
        path.as_ref().map(|path| format!(" in {path}")).unwrap_or_default()
    ));
    let mut command = match known(access::TRANSPORT).as_deref() {
        Some("local") => {
            same_machine(known(access::BOOT_ID).as_deref())?;
            let mut command = Command::new("sh");
            command.args(["-c", IN_TREE, "sh", path.as_deref().unwrap_or(".")]).args(&args.command);
            return run(&mut command);
        }
        Some("ssh") => Command::new("ssh"),
        Some(_) | None => {
            return Err(Failure::new(Exit::BadData, format!("{id} has no way in over SSH"))
                .remedy("it must be made ready first; wharfinger resources shows its state"));
        }
    };
    let needed = |key: &str| {
        known(key).ok_or_else(|| Failure::new(Exit::Internal, format!("the access of {id} has no {key}: report it")))
    };
    // The alias, and not the address, is looked up: any address and port has the one key that the server knows.
    let hosts = KnownHosts::write(&id, &needed(access::HOST_KEY)?)
        .map_err(|error| Failure::new(Exit::Internal, format!("the host key cannot be kept: {error}")))?;
    let from_lease = match &lease {
        Some(lease) => KeyFile::write(lease)
            .map_err(|error| Failure::new(Exit::Internal, format!("the lease's key cannot be kept: {error}")))?,
        None => None,
    };
    let key = args.identity.clone().or_else(|| from_lease.as_ref().map(|file| file.path().into())).or_else(own_key);
    if std::io::stdin().is_terminal() {
        command.arg("-t");
    }
    command.arg("-o").arg(format!("UserKnownHostsFile={}", hosts.0.display()));
    command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]);
    command.arg("-o").arg(format!("HostKeyAlias={id}"));
    if let Some(proxy) = known(access::PROXY_COMMAND) {
        command.arg("-o").arg(format!("ProxyCommand={proxy}"));
    }
    if let Some(key) = key {
        command.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(key);
    }
    command.arg("-p").arg(known(access::PORT).unwrap_or_else(|| "22".into()));
    command.arg("-l").arg(needed(access::USER)?).arg("--").arg(needed(access::ADDRESS)?);
    // The remote side joins its arguments to one text for the login shell: each is quoted for it.
    let words = ["exec", "sh", "-c", IN_TREE, "sh", path.as_deref().unwrap_or(".")].map(quote);
    command.args(words).args(args.command.iter().map(|word| quote(word)));
    run(&mut command)
}

/// Runs it in the foreground.
fn run(command: &mut Command) -> Result<Exit, Failure> {
    let program = command.get_program().to_string_lossy().to_string();
    let status = command.status().map_err(|error| {
        Failure::new(Exit::NotFound, format!("{program} cannot be started: {error}"))
            .remedy("install an OpenSSH client")
    })?;
    Ok(Exit::Command(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255)))
}

/// A file with the one key that the host may show; removed when dropped.
struct KnownHosts(PathBuf);

impl KnownHosts {
    fn write(alias: &str, key: &str) -> std::io::Result<Self> {
        let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = folder.join(format!("wharfinger-{alias}-{}.hosts", std::process::id()));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = Self(path);
        writeln!(file, "{alias} {key}")?;
        Ok(written)
    }
}

impl Drop for KnownHosts {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
