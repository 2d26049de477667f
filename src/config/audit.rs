//! `[audit]`: the file of refusals.

use super::problem::{Problems, Span};
use super::reader::Reader;
use crate::telemetry::AuditSettings;
use std::path::Path;
use toml::Spanned;

/// Default of the maximum size in bytes.
const MAX_SIZE: u64 = 64 << 20;
/// Bounds of the maximum size in bytes.
const SIZES: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 40;

/// `[audit]` as read.
#[derive(Debug, Default)]
pub(crate) struct AuditSection {
    span: Option<Span>,
    file: Option<Spanned<String>>,
    max_size: Option<Spanned<u64>>,
}

pub(super) fn read(file: &mut Reader<'_>, problems: &mut Problems) -> AuditSection {
    let mut audit = file.table("audit", "[audit]", problems);
    let section = AuditSection {
        span: audit.span(),
        file: audit.text("file", problems),
        max_size: audit.size("max_size", SIZES, problems),
    };
    audit.finish(problems);
    section
}

pub(super) fn check(section: &AuditSection, folder: &Path, problems: &mut Problems) -> Option<AuditSettings> {
    let span = section.span.clone()?;
    let Some(file) = &section.file else {
        problems.add(span, "[audit] has no `file`", "add file = \"/var/log/wharfinger/refusals\", or take [audit] out");
        return None;
    };
    let path = folder.join(file.get_ref());
    let parent = path.parent().filter(|_| !file.get_ref().is_empty());
    if !parent.is_some_and(Path::is_dir) || path.is_dir() {
        let message = format!("`file` is {:?}, which is no file in a directory that exists", file.get_ref());
        problems.add(file.span(), message, "make the directory, or name another file");
    }
    let max_size = section.max_size.as_ref().map_or(MAX_SIZE, |size| *size.get_ref());
    Some(AuditSettings { file: path, max_size })
}
