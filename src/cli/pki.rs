//! `pki`: a certificate authority for a few machines.

use super::error::Failure;
use super::exit::Exit;
use super::ui::Ui;
use crate::clock::wall;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use wharfinger_tls::pki::{Authority, CLIENT, PkiError, SERVER, Written};
use wharfinger_tls::spiffe::Uri;

/// `pki`. A farm with many machines uses step-ca, cert-manager, SPIRE or Vault.
#[derive(Subcommand, Debug)]
pub(crate) enum PkiVerb {
    /// Make an authority for the names of one trust domain: ca.pem, and ca.key, which stays where it is
    Init(InitArgs),
    /// Make the certificate and the key of a server
    Server(ServerArgs),
    /// Make the certificate and the key of a caller
    Client(ClientArgs),
    /// Revoke a certificate: sign the list revoked.pem anew, which servers name in `crl`
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// Directory of the authority
    directory: PathBuf,
    /// Trust domain of its names, as in farm.example.org
    #[arg(long, value_name = "DOMAIN")]
    domain: String,
}

#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// Directory of the authority
    directory: PathBuf,
    /// Host name or IP address by which clients reach the server; several times for several
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Name of the server for --server-uri of its clients
    #[arg(long, value_name = "URI", value_parser = uri)]
    uri: Option<Uri>,
    #[command(flatten)]
    made: MadeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ClientArgs {
    /// Directory of the authority
    directory: PathBuf,
    /// Name of the caller: spiffe://DOMAIN/PATH
    #[arg(long, value_name = "URI", value_parser = uri)]
    uri: Uri,
    #[command(flatten)]
    made: MadeArgs,
}

#[derive(Args, Debug)]
struct MadeArgs {
    /// Directory for the two files
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    out: PathBuf,
    /// Validity, as in 24h or 90d; a day for a caller, 90 days for a server if absent
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    valid: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// Directory of the authority
    directory: PathBuf,
    /// File of the certificate
    certificate: PathBuf,
}

fn uri(text: &str) -> Result<Uri, String> {
    Uri::parse(text).map_err(|error| format!("it {error}"))
}

fn span(text: &str) -> Result<Duration, String> {
    let ms = crate::duration::parse(text).map_err(|why| format!("it {why}"))?;
    match u64::try_from(ms) {
        Ok(ms) if ms >= 60_000 => Ok(Duration::from_millis(ms)),
        Ok(_) | Err(_) => Err("it is less than a minute".into()),
    }
}

/// Runs `pki`.
pub(crate) fn pki(ui: &Ui, verb: &PkiVerb) -> Result<Exit, Failure> {
    match verb {
        PkiVerb::Init(args) => {
            let authority = Authority::init(&args.directory, &args.domain, wall()).map_err(failure)?;
            let certificate = args.directory.join("ca.pem");
            if ui.json {
                ui.document(
                    &json!({ "domain": authority.domain(), "certificate": certificate.display().to_string() }),
                )?;
            } else {
                ui.out(&format!(
                    "{} signs the names of {}: give it to servers as client_ca, and to clients as --ca-file.\n\
                     Keep {} where it is: it signs any name.\n",
                    certificate.display(),
                    authority.domain(),
                    args.directory.join("ca.key").display()
                ))?;
            }
        }
        PkiVerb::Server(args) => {
            let authority = Authority::open(&args.directory, wall()).map_err(failure)?;
            let valid = args.made.valid.unwrap_or(SERVER);
            let made = authority.server(&args.made.out, &args.names, args.uri.as_ref(), valid, wall());
            made_one(ui, &made.map_err(failure)?)?;
        }
        PkiVerb::Client(args) => {
            let authority = Authority::open(&args.directory, wall()).map_err(failure)?;
            let valid = args.made.valid.unwrap_or(CLIENT);
            made_one(ui, &authority.client(&args.made.out, &args.uri, valid, wall()).map_err(failure)?)?;
        }
        PkiVerb::Revoke(args) => {
            let authority = Authority::open(&args.directory, wall()).map_err(failure)?;
            let list = authority.revoke(&args.certificate, wall()).map_err(failure)?;
            if ui.json {
                ui.document(&json!({ "list": list.display().to_string() }))?;
            } else {
                ui.out(&format!("{}: give it to servers as crl; they read it again by themselves\n", list.display()))?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn made_one(ui: &Ui, made: &Written) -> Result<(), Failure> {
    let (certificate, key) = (made.certificate.display().to_string(), made.key.display().to_string());
    let until = super::text::rfc3339(&made.not_after.into()).unwrap_or_default();
    if ui.json {
        return ui.document(&json!({ "certificate": certificate, "key": key, "not_after": until }));
    }
    ui.out(&format!("{certificate}\n{key}\nvalid until {until}\n"))
}

fn failure(error: PkiError) -> Failure {
    let failure = Failure::new(Exit::BadData, error.to_string());
    match error {
        PkiError::Exists(_) => failure.remedy("name another directory, or remove what is there first"),
        PkiError::Authority { .. } => failure.remedy("make one: wharfinger pki init DIRECTORY --domain DOMAIN"),
        PkiError::File { .. } | PkiError::Request(_) | PkiError::Made(_) => failure,
    }
}
