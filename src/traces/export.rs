//! The way to the collector: OTLP over gRPC.

use super::otlp;
use super::settings::TraceSettings;
use super::story::Span;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use std::path::Path;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use wharfinger_client::internal::Connector;
use wharfinger_tls::{ClientSettings, ClientTls};

/// Maximum time of one export, with the connection.
const LIMIT: Duration = Duration::from_secs(10);
/// Maximum length of a token's file in bytes.
const MAX_FILE: u64 = 16 * 1024;

/// The reason why an export failed.
#[derive(Debug)]
pub(super) enum ExportError {
    /// The collector may take it later.
    Later(String),
    /// The collector refuses these spans.
    Refused(String),
}

/// A client of the collector. It connects at its first use, and again after a failure.
pub(super) struct Exporter {
    settings: TraceSettings,
    channel: Option<Channel>,
}

impl Exporter {
    pub(super) fn new(settings: TraceSettings) -> Self {
        Self { settings, channel: None }
    }

    /// Exports spans.
    pub(super) async fn export(&mut self, spans: &[Span]) -> Result<(), ExportError> {
        let exported = tokio::time::timeout(LIMIT, self.try_export(spans)).await;
        let exported = exported.unwrap_or_else(|_| Err(ExportError::Later(format!("no answer within {LIMIT:?}"))));
        if exported.is_err() {
            self.channel = None;
        }
        exported
    }

    async fn try_export(&mut self, spans: &[Span]) -> Result<(), ExportError> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let channel = connect(&self.settings).await.map_err(ExportError::Later)?;
                self.channel.insert(channel).clone()
            }
        };
        let mut request = Request::new(otlp::request(spans));
        if let Some(file) = &self.settings.bearer_file {
            let token = token(file).await.map_err(ExportError::Later)?;
            let mut value = MetadataValue::try_from(format!("Bearer {token}"))
                .map_err(|_| ExportError::Later("the token has characters that no token has".to_owned()))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        let answer = TraceServiceClient::new(channel).export(request).await.map_err(|status| sorted(&status))?;
        if let Some(partly) = answer.into_inner().partial_success
            && partly.rejected_spans > 0
        {
            tracing::debug!(spans = partly.rejected_spans, why = partly.error_message, "the collector left spans out");
        }
        Ok(())
    }
}

/// Whether the collector may take the same spans later, as OTLP says of the codes. Refused callers may be let in later, too.
fn sorted(status: &Status) -> ExportError {
    let why = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => {
            ExportError::Refused(why)
        }
        _ => ExportError::Later(why),
    }
}

async fn connect(settings: &TraceSettings) -> Result<Channel, String> {
    let at = &settings.endpoint;
    // The connector makes TLS itself; tonic has none.
    let plain = at.to_string().replacen("https://", "http://", 1);
    let endpoint = Endpoint::from_shared(plain).map_err(|error| error.to_string())?.connect_timeout(LIMIT);
    let said = |error: tonic::transport::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{at}: {error}{cause}")
    };
    if !at.is_https() {
        return endpoint.connect().await.map_err(said);
    }
    let client = ClientSettings { ca: settings.ca_file.clone(), identity: None, server_uri: None };
    let tls = ClientTls::load(client).map_err(|problem| problem.to_string())?;
    endpoint.connect_with_connector(Connector { tls }).await.map_err(said)
}

async fn token(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the token file {} cannot be read: {error}", path.display());
    let about = tokio::fs::metadata(path).await.map_err(failed)?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(format!("{} is no file of at most {MAX_FILE} bytes", path.display()));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Connects to the collector, and exports nothing. The text says what answered.
///
/// # Errors
/// The reason why there is no connection.
pub async fn reach(settings: &TraceSettings) -> Result<String, String> {
    match tokio::time::timeout(LIMIT, connect(settings)).await {
        Ok(connected) => connected.map(|_| format!("{} answers; nothing was sent", settings.endpoint)),
        Err(_) => Err(format!("{}: no answer within {LIMIT:?}", settings.endpoint)),
    }
}
