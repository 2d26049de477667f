//! A tar stream of a host, unpacked here. The host is not trusted: an entry that would leave the directory, or that is neither a
//! file nor a directory, is left out. Nothing has its place before the end of the attempt is known.

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, open, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Maximum number of entries in a stream.
const ENTRIES_MAX: usize = 100_000;
/// Maximum length of what precedes the content of one entry, in bytes: headers, with long names.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Maximum number of parts of a path.
const DEPTH_MAX: usize = 64;
/// Maximum length of a path, and of one of its parts, in bytes.
const PATH_BYTES_MAX: usize = 4096;
const PART_BYTES_MAX: usize = 255;
/// Maximum number of faults that are reported by their paths.
const FAULTS_SHOWN: usize = 5;

/// Files that were received, and that have no place yet. Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The directory that they go to.
    root: OwnedFd,
    /// The directory that holds them meanwhile, in `root`.
    aside: OwnedFd,
    aside_name: String,
    entries: Vec<Entry>,
    faults: Faults,
}

#[derive(Debug)]
struct Entry {
    path: Vec<OsString>,
    /// Number of the file that holds the content; none for a directory.
    content: Option<usize>,
}

/// Entries that were left out, with the reasons.
#[derive(Debug, Default)]
struct Faults {
    shown: Vec<String>,
    more: usize,
}

impl Faults {
    fn add(&mut self, path: &[u8], why: &str) {
        if self.shown.len() < FAULTS_SHOWN {
            let mut path = String::from_utf8_lossy(path).into_owned();
            if path.chars().count() > 100 {
                path = path.chars().take(100).chain(['…']).collect();
            }
            self.shown.push(format!("{path:?} {why}"));
        } else {
            self.more += 1;
        }
    }

    fn text(&self) -> Option<String> {
        let more = if self.more > 0 { format!("; and {} more", self.more) } else { String::new() };
        (!self.shown.is_empty()).then(|| format!("left out: {}{more}", self.shown.join("; ")))
    }
}

/// Unpacks a stream into a directory beside its place. `limit`: of all contents together, in bytes.
///
/// # Errors
/// The directory cannot be written, the stream is no tar stream or ends too soon, or it has too much.
pub(crate) fn unpack(source: impl Read, to: &Path, name: &str, limit: u64) -> Result<Staged, String> {
    let mut staged = Staged::begin(to, name)?;
    let budget = Rc::new(Cell::new(HEADER_BYTES_MAX));
    let mut archive = tar::Archive::new(Metered { source, budget: budget.clone() });
    let mut left = limit;
    let mut contents = 0;
    let mut known: HashMap<Vec<OsString>, usize> = HashMap::new();
    let broken = |error: Error| format!("the host's stream of files breaks off: {error}");
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        budget.set(HEADER_BYTES_MAX);
        if staged.entries.len() + staged.faults.shown.len() + staged.faults.more >= ENTRIES_MAX {
            return Err(format!("the host sends more than {ENTRIES_MAX} entries; name fewer files"));
        }
        let name = entry.path_bytes().into_owned();
        let path = match parts(&name) {
            Ok(path) => path,
            Err(why) => {
                staged.faults.add(&name, why);
                // Its content is passed over within the limit.
                budget.set(left.saturating_add(HEADER_BYTES_MAX));
                left = left.saturating_sub(entry.size());
                std::io::copy(&mut entry, &mut std::io::sink()).map_err(broken)?;
                budget.set(HEADER_BYTES_MAX);
                continue;
            }
        };
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                if !path.is_empty() {
                    staged.entries.push(Entry { path, content: None });
                }
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse if !path.is_empty() => {
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                let size = entry.size();
                if size > left {
                    return Err(too_much(limit));
                }
                let mut file = staged.content(contents, executable)?;
                budget.set(size.saturating_add(HEADER_BYTES_MAX));
                let copied = std::io::copy(&mut (&mut entry).take(left + 1), &mut file);
                budget.set(HEADER_BYTES_MAX);
                let copied = copied.map_err(|error| format!("{}: {error}", to.display()))?;
                if copied > left {
                    return Err(too_much(limit));
                }
                if copied < size {
                    return Err(broken(ErrorKind::UnexpectedEof.into()));
                }
                left -= copied;
                known.insert(path.clone(), contents);
                staged.entries.push(Entry { path, content: Some(contents) });
                contents += 1;
            }
            // A second name of a file that came before in this stream: a copy of it.
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().and_then(|target| parts(&target).ok());
                match target.and_then(|target| known.get(&target).copied()) {
                    Some(first) => {
                        let copied = staged.copy(first, contents, left)?.ok_or_else(|| too_much(limit))?;
                        left -= copied;
                        known.insert(path.clone(), contents);
                        staged.entries.push(Entry { path, content: Some(contents) });
                        contents += 1;
                    }
                    None => staged.faults.add(&name, "is a link to a file that did not come"),
                }
            }
            tar::EntryType::Symlink => staged.faults.add(&name, "is a symbolic link"),
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                staged.faults.add(&name, "is a device or a pipe");
            }
            tar::EntryType::XGlobalHeader => {}
            _ => staged.faults.add(&name, "is neither a file nor a directory"),
        }
    }
    Ok(staged)
}

fn too_much(limit: u64) -> String {
    format!("the files have more than {}; name fewer of them, or raise --fetch-max", crate::size::format(limit))
}

/// The parts of a relative path that stays below its directory.
fn parts(path: &[u8]) -> Result<Vec<OsString>, &'static str> {
    if path.starts_with(b"/") {
        return Err("is an absolute name");
    }
    if path.len() > PATH_BYTES_MAX {
        return Err("is too long a name");
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("leads out of the directory"),
            part if part.len() > PART_BYTES_MAX => return Err("is too long a name"),
            part if part.iter().any(u8::is_ascii_control) => return Err("has a control character"),
            part => parts.push(OsStr::from_bytes(part).to_os_string()),
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err("is too deep");
    }
    Ok(parts)
}

/// A reader that refuses to go on when its budget is spent: names and headers are kept in memory by the reader of the stream.
struct Metered<R> {
    source: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.budget.get() == 0 && !buffer.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "a header is too long"));
        }
        let most = usize::try_from(self.budget.get()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.source.read(&mut buffer[..most])?;
        self.budget.set(self.budget.get() - read as u64);
        Ok(read)
    }
}

impl Staged {
    fn begin(to: &Path, name: &str) -> Result<Self, String> {
        let failed = |error: Errno| format!("{} cannot be written: {error}", to.display());
        std::fs::create_dir_all(to).map_err(|error| format!("{} cannot be made: {error}", to.display()))?;
        // The user names this one; a link is the user's own.
        let root = open(to, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        sweep(&root);
        let aside_name = format!("{ASIDE}{name}-{}", std::process::id());
        let mut tried = 0;
        loop {
            let made = mkdirat(&root, &aside_name, Mode::RWXU)
                .and_then(|()| openat(&root, &aside_name, DIRECTORY, Mode::empty()))
                .and_then(|aside| locked(&root, &aside, &aside_name).map(|()| aside));
            match made {
                Ok(aside) => {
                    return Ok(Self { root, aside, aside_name, entries: Vec::new(), faults: Faults::default() });
                }
                // Another fetch took it for one that was left over, before it was locked, and removes it.
                Err(Errno::EXIST | Errno::NOENT | Errno::WOULDBLOCK) if tried < BEGIN_TRIES => {
                    tried += 1;
                    std::thread::sleep(BEGIN_PAUSE);
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// A new file for a content. Of the mode only the right to execute is taken; set-id bits are not.
    fn content(&self, number: usize, executable: bool) -> Result<File, String> {
        let mode = if executable { 0o777 } else { 0o666 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&self.aside, number.to_string(), flags, Mode::from_bits_truncate(mode));
        made.map(File::from).map_err(|error| format!("a file cannot be made: {error}"))
    }

    /// Copies one content. `None`: it has more than `left` bytes.
    fn copy(&self, from: usize, to: usize, left: u64) -> Result<Option<u64>, String> {
        let failed = |error: Error| format!("a file cannot be copied: {error}");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source =
            openat(&self.aside, from.to_string(), flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let mut source = File::from(source);
        let executable = source.metadata().is_ok_and(|about| {
            use std::os::unix::fs::PermissionsExt;
            about.permissions().mode() & 0o100 != 0
        });
        if source.metadata().map_err(failed)?.len() > left {
            return Ok(None);
        }
        std::io::copy(&mut source, &mut self.content(to, executable)?).map(Some).map_err(failed)
    }

    /// Gives each file its place. Returns the paths of the files, and the reason for those that were left out.
    pub(crate) fn place(mut self) -> (Vec<String>, Option<String>) {
        let mut placed = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            let path: PathBuf = entry.path.iter().collect();
            match self.place_one(&entry) {
                Ok(()) if entry.content.is_some() => placed.push(path.to_string_lossy().into_owned()),
                Ok(()) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.faults.add(path.as_os_str().as_bytes(), "would go through a link or a file that is here");
                }
                Err(error) => self.faults.add(path.as_os_str().as_bytes(), &format!("cannot be placed: {error}")),
            }
        }
        // A name that came twice was placed twice.
        placed.sort_unstable();
        placed.dedup();
        (placed, self.faults.text())
    }

    fn place_one(&self, entry: &Entry) -> Result<(), Errno> {
        let (name, above) = match (entry.content, entry.path.split_last()) {
            (Some(_), Some((name, above))) => (Some(name), above),
            _ => (None, entry.path.as_slice()),
        };
        let mut folder = self.root.try_clone().map_err(|_| Errno::MFILE)?;
        for part in above {
            match mkdirat(&folder, part, Mode::from_bits_truncate(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            folder = openat(&folder, part, DIRECTORY, Mode::empty())?;
        }
        match (name, entry.content) {
            // A link of this name is replaced, not followed.
            (Some(name), Some(number)) => renameat(&self.aside, number.to_string(), folder.as_fd(), name),
            _ => Ok(()),
        }
    }
}

/// A directory, and never through a link.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Drop for Staged {
    fn drop(&mut self) {
        remove(&self.root, &self.aside, self.aside_name.as_ref());
    }
}

/// How the name of a directory for received files begins.
const ASIDE: &str = ".wharfinger-";
/// Maximum number of tries to make one, and the pause between two.
const BEGIN_TRIES: u32 = 50;
const BEGIN_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Locks a directory of this name, for as long as it is open: a process that is killed leaves it without a lock.
///
/// # Errors
/// Another process has the lock, or the directory is no longer there.
fn locked(root: &OwnedFd, aside: &OwnedFd, name: &str) -> Result<(), Errno> {
    flock(aside, FlockOperation::NonBlockingLockExclusive)?;
    let (own, there) = (fstat(aside)?, statat(root, name, AtFlags::SYMLINK_NOFOLLOW)?);
    if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino) { Ok(()) } else { Err(Errno::NOENT) }
}

/// Removes the directories that killed processes have left in this one.
fn sweep(root: &OwnedFd) {
    let Ok(names) = Dir::read_from(root) else { return };
    for name in names.flatten() {
        let name = OsStr::from_bytes(name.file_name().to_bytes());
        let Some(Ok(aside)) = is_aside(name).then(|| openat(root, name, DIRECTORY, Mode::empty())) else { continue };
        // One that is locked is in use.
        if flock(&aside, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(root, &aside, name);
        }
    }
}

/// Whether a name is that of a directory for received files: of a lease, by a process.
fn is_aside(name: &OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.strip_prefix(ASIDE)?.strip_prefix("lse_")?.rsplit_once('-'));
    parts.is_some_and(|(lease, process)| {
        lease.bytes().all(|b| b.is_ascii_alphanumeric())
            && !process.is_empty()
            && process.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Removes a directory for received files with its files, which have numbers for names.
fn remove(root: &OwnedFd, aside: &OwnedFd, name: &OsStr) {
    if let Ok(names) = Dir::read_from(aside) {
        for name in names.flatten().filter(|name| name.file_name().to_bytes().iter().all(u8::is_ascii_digit)) {
            let _ = unlinkat(aside, name.file_name(), AtFlags::empty());
        }
    }
    let _ = unlinkat(root, name, AtFlags::REMOVEDIR);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tar::{Builder, EntryType, Header};

    /// A stream, made without the checks of the library.
    struct Stream(Builder<Vec<u8>>);

    impl Stream {
        fn new() -> Self {
            Self(Builder::new(Vec::new()))
        }

        fn add(&mut self, kind: EntryType, name: &[u8], target: &[u8], mode: u32, content: &[u8]) {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            header.set_cksum();
            self.0.append(&header, content).unwrap();
        }

        fn file(&mut self, name: &str, content: &str) {
            self.add(EntryType::Regular, name.as_bytes(), b"", 0o644, content.as_bytes());
        }

        fn bytes(self) -> Vec<u8> {
            self.0.into_inner().unwrap()
        }
    }

    fn brought(stream: Stream, to: &Path) -> (Vec<String>, String) {
        let (placed, faults) = unpack(&stream.bytes()[..], to, "test", 1 << 20).unwrap().place();
        (placed, faults.unwrap_or_default())
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn remains_of_a_killed_fetch_are_removed_by_the_next_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |lease: &str| Staged::begin(folder.path(), lease).unwrap();
        let under_way = begin("lse_1");
        under_way.content(0, false).unwrap();
        let left = folder.path().join(".wharfinger-lse_2-77");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("0"), "x").unwrap();
        std::fs::write(left.join("1"), "y").unwrap();
        // Not of a fetch: other names, a file, a link, a file that no fetch makes.
        for other in
            [".wharfinger-lse_3", ".wharfinger-lse_3-", ".wharfinger-lse_3-x", ".wharfinger-other-3", "lse_3-3"]
        {
            std::fs::create_dir(folder.path().join(other)).unwrap();
        }
        std::fs::write(folder.path().join(".wharfinger-lse_4-4"), "").unwrap();
        symlink(folder.path().join("lse_3-3"), folder.path().join(".wharfinger-lse_5-5")).unwrap();
        std::fs::create_dir(folder.path().join(".wharfinger-lse_6-6")).unwrap();
        std::fs::write(folder.path().join(".wharfinger-lse_6-6/mine"), "").unwrap();
        let before = names(folder.path());
        let second = begin("lse_7");
        let mut wanted: Vec<String> = before.into_iter().filter(|name| name != ".wharfinger-lse_2-77").collect();
        wanted.push(second.aside_name.clone());
        wanted.sort();
        assert_eq!(names(folder.path()), wanted);
        drop(second);
        let own = under_way.aside_name.clone();
        assert!(folder.path().join(&own).join("0").exists());
        drop(under_way);
        assert!(!folder.path().join(own).exists());
    }

    #[test]
    fn fetches_that_begin_at_once_do_not_remove_one_another() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let folder = &folder;
                scope.spawn(move || {
                    for _ in 0..50 {
                        let staged = Staged::begin(folder.path(), &format!("lse_{n}")).unwrap();
                        staged.content(0, false).unwrap();
                        assert!(folder.path().join(&staged.aside_name).join("0").exists());
                    }
                });
            }
        });
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn files_come_with_their_directories_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let mut stream = Stream::new();
        stream.add(EntryType::Directory, b"./out/", b"", 0o755, b"");
        stream.file("./out/a.txt", "one");
        stream.add(EntryType::Regular, b"out/tool", b"", 0o6755, b"#!");
        stream.add(EntryType::Link, b"out/same", b"./out/a.txt", 0o644, b"");
        stream.add(EntryType::Directory, b"empty", b"", 0o755, b"");
        let (placed, faults) = brought(stream, folder.path());
        assert_eq!((placed, faults.as_str()), (["out/a.txt", "out/same", "out/tool"].map(String::from).to_vec(), ""));
        assert_eq!(std::fs::read_to_string(folder.path().join("out/same")).unwrap(), "one");
        let mode = std::fs::metadata(folder.path().join("out/tool")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7100, 0o100, "to be executed, and with no set-id bit: {mode:o}");
        assert_eq!(names(folder.path()), ["empty", "out"]);
    }

    #[test]
    fn hostile_entries_are_left_out_and_the_others_come() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("to");
        let mut stream = Stream::new();
        for name in ["../out", "a/../../out", "/etc/wharfinger-test", "..", "a/..", "new\nline", "esc\u{1b}[2J"] {
            stream.file(name, "bad");
        }
        stream.add(EntryType::Symlink, b"link", b"/etc", 0o777, b"");
        stream.file("link/passwd", "through a link that was left out");
        stream.add(EntryType::Link, b"hard", b"/etc/passwd", 0o644, b"");
        stream.add(EntryType::Link, b"hard2", b"../secret", 0o644, b"");
        stream.add(EntryType::Char, b"null", b"", 0o666, b"");
        stream.add(EntryType::Block, b"disk", b"", 0o666, b"");
        stream.add(EntryType::Fifo, b"pipe", b"", 0o666, b"");
        stream.file("good", "good");
        let (placed, faults) = brought(stream, &folder);
        assert_eq!(placed, ["good", "link/passwd"]);
        assert!(
            faults.contains("\"../out\" leads out") && faults.contains("absolute") && faults.contains("more"),
            "{faults}"
        );
        assert!(!faults.contains('\n') && !faults.contains('\u{1b}'), "{faults:?}");
        assert_eq!(names(above.path()), ["to"]);
        assert_eq!(names(&folder), ["good", "link"]);
        assert!(!folder.join("link").is_symlink());
    }

    #[test]
    fn links_that_are_here_are_not_followed() {
        let above = tempfile::tempdir().unwrap();
        let (folder, outside) = (above.path().join("to"), above.path().join("outside"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("kept"), "kept").unwrap();
        symlink(&outside, folder.join("out")).unwrap();
        symlink(outside.join("kept"), folder.join("report")).unwrap();
        let mut stream = Stream::new();
        stream.file("out/evil", "evil");
        stream.file("report", "new");
        let (placed, faults) = brought(stream, &folder);
        assert_eq!(placed, ["report"]);
        assert!(faults.contains("\"out/evil\" would go through a link"), "{faults}");
        assert_eq!(std::fs::read_to_string(outside.join("kept")).unwrap(), "kept");
        assert_eq!(names(&outside), ["kept"]);
        assert!(!folder.join("report").is_symlink(), "the link was replaced");
    }

    #[test]
    fn a_file_cannot_become_the_directory_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut stream = Stream::new();
        stream.file("a", "file");
        stream.file("a/b", "below");
        stream.file("c/d", "below");
        stream.file("c", "file");
        let (placed, faults) = brought(stream, folder.path());
        assert_eq!(placed, ["a", "c/d"]);
        assert!(faults.contains("\"a/b\" would go through") && faults.contains("\"c\" cannot be placed"), "{faults}");
    }

    #[test]
    fn too_much_is_refused_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut stream = Stream::new();
        stream.file("a", &"x".repeat(600));
        stream.file("b", &"x".repeat(600));
        let said = unpack(&stream.bytes()[..], folder.path(), "test", 1000).unwrap_err();
        assert!(said.contains("more than 1000 bytes"), "{said}");
        assert!(names(folder.path()).is_empty());
        let mut stream = Stream::new();
        stream.file("a", &"x".repeat(600));
        stream.add(EntryType::Link, b"b", b"a", 0o644, b"");
        assert!(unpack(&stream.bytes()[..], folder.path(), "test", 1000).is_err(), "a link is a copy, and counts");
    }

    #[test]
    fn a_name_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(8 << 30);
        header.set_cksum();
        let endless = std::io::Cursor::new(header.as_bytes().to_vec()).chain(std::io::repeat(b'a'));
        let said = unpack(endless, folder.path(), "test", 1 << 40).unwrap_err();
        assert!(said.contains("too long"), "{said}");
    }

    #[test]
    fn a_stream_that_breaks_off_is_no_stream() {
        let folder = tempfile::tempdir().unwrap();
        let mut stream = Stream::new();
        stream.file("a", &"x".repeat(5000));
        let bytes = stream.bytes();
        assert!(unpack(&bytes[..2000], folder.path(), "test", 1 << 20).is_err());
        assert!(unpack(&b"no tar stream at all".repeat(100)[..], folder.path(), "test", 1 << 20).is_err());
        assert!(names(folder.path()).is_empty(), "nothing is left");
    }
}
