//! `[audit]`: refusals in a file of their own, with mode 0600, up to a size. SIGHUP opens it again, so that another program can rotate it.
//!
//! Without the file, or while it cannot be written, refusals go where all other events go. What a full file leaves out is counted, and the
//! number is the first line after the next SIGHUP that finds room.

use rustix::fs::{Mode, OFlags};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tracing_subscriber::fmt::MakeWriter;

/// The table `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The file, with an absolute path.
    pub file: PathBuf,
    /// Maximum size of the file in bytes.
    pub max_size: u64,
}

/// The file of the process.
static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// An open file.
#[derive(Debug)]
struct Sink {
    settings: AuditSettings,
    file: File,
    size: u64,
    /// Lines that the file had no room for.
    left_out: u64,
    /// Messages that the log has still to get.
    news: Option<AuditNews>,
    failing: bool,
}

/// Events of the file that an operator must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditNews {
    /// The file is full. From now on lines are counted alone.
    Full(PathBuf),
    /// The file cannot be written. Lines go to the log.
    Failed(PathBuf, String),
}

/// Where one line goes.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    ToFile,
    /// Counted alone: the file is full.
    LeftOut,
    /// The log has to take it.
    Not,
}

fn sink() -> MutexGuard<'static, Option<Sink>> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the file, or opens it again. `None`: there is none from now on.
///
/// # Errors
/// The file cannot be opened, is not a regular file, or its mode cannot be set. The one before stays.
pub(crate) fn set(settings: Option<&AuditSettings>) -> io::Result<()> {
    let mut sink = sink();
    let next = match settings {
        Some(settings) => Some(Sink::open(settings, sink.as_ref().map_or(0, |before| before.left_out))?),
        None => None,
    };
    *sink = next;
    Ok(())
}

/// Events of the file since the last question.
pub(crate) fn news() -> Option<AuditNews> {
    sink().as_mut()?.news.take()
}

fn open(path: &Path) -> io::Result<File> {
    // A link could lead to a file of others. Without O_NONBLOCK a pipe without a reader would stop the server.
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Sink {
    fn open(settings: &AuditSettings, left_out: u64) -> io::Result<Self> {
        let file = open(&settings.file)?;
        let size = file.metadata()?.len();
        let mut sink = Sink { settings: settings.clone(), file, size, left_out, news: None, failing: false };
        if left_out > 0 {
            let line = left_out_line(left_out, crate::clock::wall());
            if sink.write(line.as_bytes()) == Written::ToFile {
                sink.left_out = 0;
            } else {
                sink.left_out = left_out;
            }
        }
        Ok(sink)
    }

    fn write(&mut self, line: &[u8]) -> Written {
        let length = line.len() as u64;
        if self.size.saturating_add(length) > self.settings.max_size {
            if self.left_out == 0 {
                self.news = Some(AuditNews::Full(self.settings.file.clone()));
            }
            self.left_out += 1;
            return Written::LeftOut;
        }
        match self.file.write_all(line) {
            Ok(()) => {
                self.size += length;
                self.failing = false;
                Written::ToFile
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    self.news = Some(AuditNews::Failed(self.settings.file.clone(), error.to_string()));
                }
                Written::Not
            }
        }
    }
}

/// The line that says how many were left out, in the form of the others.
fn left_out_line(count: u64, now: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(now).map(|now| now.to_string()).unwrap_or_default();
    let line = serde_json::json!({
        "timestamp": timestamp, "level": "WARN", "message": "refusals were left out: the file was full", "count": count, "target": super::AUDIT,
    });
    format!("{line}\n")
}

/// Writes refusals to the file, and to `other` without one.
#[derive(Clone)]
pub(super) struct Refused<W> {
    pub(super) other: W,
}

/// One line of it.
pub(super) struct Line<O> {
    other: O,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Refused<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Line { other: self.other.make_writer() }
    }
}

impl<O: Write> Write for Line<O> {
    /// The subscriber writes each line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = sink().as_mut().map_or(Written::Not, |sink| sink.write(line));
        match written {
            Written::ToFile | Written::LeftOut => Ok(line.len()),
            Written::Not => self.other.write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.other.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: PathBuf, max_size: u64) -> AuditSettings {
        AuditSettings { file, max_size }
    }

    #[test]
    fn a_full_file_counts_and_says_so_once_it_is_opened_with_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let mut sink = Sink::open(&settings(path.clone(), 250), 0).unwrap();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let written: Vec<Written> = (0..5).map(|_| sink.write(&line)).collect();
        assert_eq!(written, [Written::ToFile, Written::ToFile, Written::LeftOut, Written::LeftOut, Written::LeftOut]);
        assert_eq!(sink.news.take(), Some(AuditNews::Full(path.clone())));
        assert_eq!((sink.write(&line), sink.news.take()), (Written::LeftOut, None), "it is said once");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 200);
        // Opened again, and still full.
        let mut sink = Sink::open(&sink.settings, sink.left_out).unwrap();
        assert_eq!((sink.left_out, sink.write(&line)), (4, Written::LeftOut));
        std::fs::rename(&path, folder.path().join("rotated")).unwrap();
        let mut sink = Sink::open(&sink.settings, sink.left_out).unwrap();
        assert_eq!((sink.left_out, sink.write(b"y\n")), (0, Written::ToFile));
        let text = std::fs::read_to_string(&path).unwrap();
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&first["count"], &first["target"]), (&5.into(), &super::super::AUDIT.into()), "{text}");
        assert_eq!(text.lines().nth(1), Some("y"));
    }

    #[test]
    fn the_audit_file_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("wide"), "before\n").unwrap();
        std::fs::set_permissions(at("wide"), Permissions::from_mode(0o644)).unwrap();
        for name in ["new", "wide"] {
            open(&at(name)).unwrap();
            assert_eq!(std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::read_to_string(at("wide")).unwrap(), "before\n");
        std::os::unix::fs::symlink(at("wide"), at("link")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        for name in ["link", "folder", "pipe", "nowhere/audit"] {
            assert!(open(&at(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_its_lines_to_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        std::fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        let settings = settings(path.clone(), 1 << 20);
        let mut sink = Sink { settings, file, size: 0, left_out: 0, news: None, failing: false };
        assert_eq!(sink.write(b"x\n"), Written::Not);
        assert!(matches!(sink.news.take(), Some(AuditNews::Failed(at, _)) if at == path));
        assert_eq!((sink.write(b"x\n"), sink.news.take()), (Written::Not, None), "it is said once");
        sink.file = open(&path).unwrap();
        assert_eq!(sink.write(b"x\n"), Written::ToFile);
    }
}
