//! `[jenkins]`: the port of Jenkins' remote locks.

use super::page::{Around, Port};
use super::problem::{Problems, Span};
use super::reader::Reader;
use std::net::SocketAddr;
use toml::Spanned;

/// The port of the remote locks.
const PORT: Port = Port { table: "[jenkins]", what: "the port", default: "127.0.0.1:7413", known: false };

/// `[jenkins]` as read.
#[derive(Debug, Default)]
pub(crate) struct JenkinsSection {
    span: Option<Span>,
    listen: Option<Spanned<String>>,
}

pub(crate) fn read(file: &mut Reader<'_>, problems: &mut Problems) -> JenkinsSection {
    let mut jenkins = file.table("jenkins", "[jenkins]", problems);
    let section = JenkinsSection { span: jenkins.span(), listen: jenkins.text("listen", problems) };
    jenkins.finish(problems);
    section
}

/// Checks the table. `None`: there is no table, or it has mistakes, which are noted.
pub(crate) fn check(section: &JenkinsSection, around: &Around<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    PORT.check(section.span.clone()?, section.listen.as_ref(), around, problems)
}
