//! `health`: asks each server by itself whether it serves. For probes of containers, scripts, and a first look.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use crate::client::internal::{ServerAddress, parse_addresses};
use clap::Args;
use futures::future::join_all;
use serde_json::json;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// For all of one server: a connection and an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Arguments of `health`.
#[derive(Args, Debug)]
pub(crate) struct HealthArgs {
    /// The service of the health protocol to ask for; default: the server as a whole
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// Of several servers one that serves is enough
    #[arg(long)]
    any: bool,
}

/// The state that one server reports of itself.
struct Said {
    server: String,
    state: &'static str,
    detail: String,
}

/// Asks, prints a line for each server, and ends with 0 if all serve (or one, with `--any`).
pub(crate) async fn health(context: &Context, args: HealthArgs) -> Result<Exit, Failure> {
    let servers =
        parse_addresses(&context.server, &context.options(PATIENCE)).map_err(|error| context.failure(error))?;
    let said: Vec<Said> = join_all(servers.into_iter().map(|server| ask(server, &args.service))).await;
    if context.ui.json {
        for one in &said {
            context.ui.record(&json!({ "server": one.server, "state": one.state, "detail": one.detail }))?;
        }
    } else {
        let mut table = context.ui.table(&["SERVER", "STATE", ""]);
        for one in &said {
            table.add_row(vec![one.server.as_str().into(), context.ui.state(one.state), one.detail.as_str().into()]);
        }
        context.ui.print(table, "")?;
    }
    let mut serve = said.iter().map(|one| one.state == SERVING);
    let well = if args.any { serve.any(|yes| yes) } else { serve.all(|yes| yes) };
    Ok(if well { Exit::Ok } else { Exit::Unavailable })
}

const SERVING: &str = "SERVING";

async fn ask(endpoint: ServerAddress, service: &str) -> Said {
    let server = endpoint.authority();
    let answer = tokio::time::timeout(PATIENCE, async {
        let channel = endpoint.connect().await.map_err(|error| Status::from_error(Box::new(error)))?;
        HealthClient::new(channel).check(HealthCheckRequest { service: service.into() }).await
    });
    let (state, detail) = match answer.await {
        Err(_) => ("SILENT", format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Ok(answer)) => match answer.into_inner().status() {
            ServingStatus::Serving => (SERVING, String::new()),
            ServingStatus::NotServing if service.is_empty() => {
                ("NOT_SERVING", "it stops, or can't serve just now".into())
            }
            ServingStatus::NotServing => ("NOT_SERVING", String::new()),
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => ("UNKNOWN", "it does not know how it is".into()),
        },
        Ok(Err(status)) if status.code() == Code::NotFound => ("UNKNOWN", format!("it has no service {service:?}")),
        Ok(Err(status)) => ("UNREACHABLE", status.message().to_owned()),
    };
    Said { server, state, detail }
}
