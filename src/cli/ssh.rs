//! `ssh`: a shell on a leased or kept resource, in its tree, with the host key that the server knows.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::run::login::{Login, SshFiles, Way, key_without_login};
use super::run::place::same_machine;
use super::select::{Named, Placed, named, placed};
use super::text;
use crate::pb;
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Command;
use wharfinger_adapter::{access, quote};

/// Arguments of `ssh`.
#[derive(Args, Debug)]
pub(crate) struct SshArgs {
    /// Which: an active lease, a resource, or a machine
    #[arg(value_name = "LEASE|RESOURCE|MACHINE")]
    place: String,
    /// Private key to log in with; without it the one that comes with the lease, then ~/.ssh/id_ed25519
    #[arg(long, short, value_name = "KEYFILE")]
    identity: Option<PathBuf>,
    /// Command to run, after --; without it, a login shell
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
    let proxy = known(access::PROXY_COMMAND);
    let files = SshFiles::for_a_while(&id)?;
    let (way, key, terminal) = match &lease {
        Some(lease) if lease.has_login() => {
            let login = Login::make(context, &client, lease, args.identity.as_deref()).await?;
            files.write_login(&login)?;
            let terminal = login.credential.permits("permit-pty");
            (login.way, None, terminal)
        }
        Some(_) | None => {
            let of_lease =
                lease.clone().unwrap_or_else(|| pb::Lease { access: access.clone(), ..pb::Lease::default() });
            let internal =
                |why| Failure::new(Exit::Internal, format!("the access of {id} is no way in: {why}; report it"));
            let way = Way::of_lease(&of_lease).map_err(internal)?;
            files.write_host_keys(&id, &way)?;
            (way, args.identity.clone().map_or_else(|| key_without_login(&files, &of_lease), Ok).ok(), true)
        }
    };
    if std::io::stdin().is_terminal() {
        if terminal {
            command.arg("-t");
        } else {
            context
                .ui
                .event("the pool grants no terminal: its operator adds permit = [\"pty\"] to the pool's authority");
        }
    }
    // The alias, and not the address, is looked up: any address and port has the one key that the server knows.
    for (keyword, value) in files.settings(&id, &way, key.as_deref(), proxy.as_deref()) {
        command.arg("-o").arg(format!("{keyword}={value}"));
    }
    command.arg("--").arg(&way.address);
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
