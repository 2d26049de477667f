//! `[traces]`: the collector of spans.

use super::problem::Problems;
use super::reader::Reader;
use super::secret_file;
use crate::traces::{Endpoint, TraceSettings, Unparented};
use std::path::Path;
use toml::Spanned;

/// `[traces]` as read.
#[derive(Debug, Default)]
pub(crate) struct TracesSection {
    span: Option<super::problem::Span>,
    endpoint: Option<Spanned<String>>,
    ca_file: Option<Spanned<String>>,
    bearer_file: Option<Spanned<String>>,
    unparented: Option<Spanned<String>>,
}

pub(super) fn read(file: &mut Reader<'_>, problems: &mut Problems) -> TracesSection {
    let mut traces = file.table("traces", "[traces]", problems);
    let section = TracesSection {
        span: traces.span(),
        endpoint: traces.text("endpoint", problems),
        ca_file: traces.text("ca_file", problems),
        bearer_file: traces.text("bearer_file", problems),
        unparented: traces.text("unparented", problems),
    };
    traces.finish(problems);
    section
}

/// The settings. `None`: there is no table, or it has mistakes, which are noted.
pub(super) fn check(section: &TracesSection, folder: &Path, problems: &mut Problems) -> Option<TraceSettings> {
    let span = section.span.clone()?;
    let before = problems.len();
    let Some(endpoint) = &section.endpoint else {
        let remedy = "add the collector's address for OTLP over gRPC, as in endpoint = \"http://127.0.0.1:4317\"";
        problems.add(span, "[traces] has no `endpoint`", remedy);
        return None;
    };
    let parsed = Endpoint::parse(endpoint.get_ref());
    match &parsed {
        None => {
            let remedy = "write http:// or https://, a host and a port, as in \"http://127.0.0.1:4317\"";
            problems.add(endpoint.span(), "`endpoint` is no address of a collector for OTLP over gRPC", remedy);
        }
        Some(parsed) if !parsed.is_https() && !parsed.is_loopback() => {
            let remedy = "use https, or a collector on this machine";
            problems.warn(endpoint.span(), "spans go over the network in plain text", remedy);
        }
        Some(_) => {}
    }
    let ca_file = section.ca_file.as_ref().map(|file| {
        let path = folder.join(file.get_ref());
        if let Err(problem) = wharfinger_tls::WebTls::load(Some(&path)) {
            problems.add(file.span(), problem.to_string(), "name a file of certificates in PEM");
        }
        path
    });
    let bearer_file = section.bearer_file.as_ref().map(|file| {
        let path = folder.join(file.get_ref());
        if let Some((message, remedy)) = secret_file::fault("token", &path) {
            problems.add(file.span(), message, remedy);
        }
        path
    });
    let unparented = match section.unparented.as_ref().map(|text| (text, text.get_ref().as_str())) {
        None | Some((_, "failed")) => Unparented::Failed,
        Some((_, "none")) => Unparented::None,
        Some((_, "all")) => Unparented::All,
        Some((text, other)) => {
            let message = format!("`unparented` is {other:?}");
            problems.add(text.span(), message, "write \"none\", \"failed\" or \"all\"").label("not known");
            return None;
        }
    };
    let endpoint = parsed.filter(|_| problems.len() == before)?;
    Some(TraceSettings { endpoint, ca_file, bearer_file, unparented })
}
