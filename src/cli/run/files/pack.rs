//! Files of this machine as a tar stream for a host.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Files that go to a leased tree before the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    /// File or directory of this machine.
    from: PathBuf,
    /// Its path in the tree.
    to: PathBuf,
}

impl Put {
    /// `FILE` or `FILE:PATH`; the last colon divides.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (from, to) = match text.rsplit_once(':') {
            Some((from, to)) => (PathBuf::from(from), PathBuf::from(to)),
            None => {
                let from = PathBuf::from(text);
                let name = from.file_name().ok_or("it has no name for the tree: write FILE:PATH")?;
                let to = PathBuf::from(name);
                (from, to)
            }
        };
        if from.as_os_str().is_empty() {
            return Err("it names no file: write FILE or FILE:PATH".into());
        }
        if to.as_os_str().is_empty() || !stays_below(&to) {
            return Err("PATH must be relative and must not contain ..".into());
        }
        Ok(Self { from, to })
    }

    /// Sees that it is there.
    pub(crate) fn check(&self) -> Result<(), String> {
        let about = std::fs::metadata(&self.from).map_err(|error| format!("{}: {error}", self.from.display()))?;
        if about.is_file() || about.is_dir() {
            return Ok(());
        }
        Err(format!("{} is neither a file nor a directory", self.from.display()))
    }
}

/// Whether a path is relative and has no `..`.
pub(crate) fn stays_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir))
}

/// Writes all of them as one stream. Links in a directory stay links; devices, pipes and sockets are refused.
///
/// # Errors
/// A file cannot be read, or the reader of the stream is gone.
pub(crate) fn pack(files: &[Put], to: impl Write) -> Result<(), String> {
    let mut stream = tar::Builder::new(to);
    stream.follow_symlinks(false);
    for put in files {
        // The one that is named may be a link: it is the user's own.
        let from = std::fs::canonicalize(&put.from).map_err(|error| format!("{}: {error}", put.from.display()))?;
        add(&mut stream, &from, &put.to)?;
    }
    stream.into_inner().and_then(|mut to| to.flush()).map_err(|error| error.to_string())
}

fn add(stream: &mut tar::Builder<impl Write>, from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: Error| format!("{}: {error}", from.display());
    let about = std::fs::symlink_metadata(from).map_err(failed)?;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(u64::try_from(about.mtime()).unwrap_or(0));
    header.set_size(0);
    if about.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        let target = std::fs::read_link(from).map_err(failed)?;
        return stream.append_link(&mut header, to, target).map_err(failed);
    }
    if about.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        stream.append_data(&mut header, to, std::io::empty()).map_err(failed)?;
        let mut names: Vec<_> = std::fs::read_dir(from)
            .and_then(|all| all.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>())
            .map_err(failed)?;
        names.sort_unstable();
        return names.iter().try_for_each(|name: &std::ffi::OsString| {
            let name: &OsStr = name;
            add(stream, &from.join(name), &to.join(name))
        });
    }
    if !about.is_file() {
        return Err(failed(Error::new(ErrorKind::Unsupported, "it is a device, a pipe or a socket")));
    }
    let file = File::open(from).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(if about.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 });
    header.set_size(size);
    // A file that shrinks or grows meanwhile must not shift the rest of the stream.
    let content = file.take(size).chain(std::io::repeat(0)).take(size);
    stream.append_data(&mut header, to, content).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_stays_in_the_tree() {
        let put = |text: &str| Put::parse(text).map(|put| (put.from, put.to));
        assert_eq!(put("a/b.txt"), Ok(("a/b.txt".into(), "b.txt".into())));
        assert_eq!(put("/x/y:in/y"), Ok(("/x/y".into(), "in/y".into())));
        assert_eq!(put("a:b:c"), Ok(("a:b".into(), "c".into())));
        for bad in ["", ":x", "x:", "x:/etc/y", "x:../y", "x:a/../../y", "/", ".."] {
            assert!(put(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_directory_goes_with_all_that_is_in_it() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/f"), "x".repeat(2000)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.path().join("link")).unwrap();
        let put = Put::parse(&format!("{}:in/tree", from.path().display())).unwrap();
        assert_eq!(put.check(), Ok(()));
        let mut stream = Vec::new();
        pack(&[put], &mut stream).unwrap();
        tar::Archive::new(&stream[..]).unpack(to.path()).unwrap();
        let there = to.path().join("in/tree");
        assert_eq!(std::fs::read(there.join("d/f")).unwrap().len(), 2000);
        assert_eq!(std::fs::read_link(there.join("link")).unwrap(), Path::new("/etc/passwd"), "not followed");
    }

    #[test]
    fn a_pipe_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let put = Put::parse(&format!("{}:x", folder.path().display())).unwrap();
        assert!(pack(&[put], &mut Vec::new()).unwrap_err().contains("a socket"));
        assert!(Put::parse("/no/such/file").unwrap().check().is_err());
    }
}
