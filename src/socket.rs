//! The Unix socket of the server: the rules for its file and directory, and the file's life.
//!
//! The socket is bound in a directory that only the server may enter, gets its mode there, and is renamed to its place. A
//! client that finds it finds it with its mode. A socket that no process listens on is replaced; one that answers is not.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// Maximum length of a socket's path in bytes (unix(7), without the zero at its end).
const LONGEST: usize = 107;
/// Length of the longest temporary name behind the directory, in bytes.
const TEMPORARY: usize = "/.w4194304-9/s".len();
/// Maximum time for the question whether a process listens on a socket that is there.
const ASK: Duration = Duration::from_secs(1);

/// The users that may connect. All others get an error from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketAccess {
    /// The server's user, and root.
    Owner,
    /// Also the server's group.
    #[default]
    Group,
    /// All users of the machine.
    Everyone,
}

impl SocketAccess {
    /// The names in a configuration: the modes of the socket.
    pub(crate) const NAMES: [(&'static str, SocketAccess); 3] =
        [("0600", SocketAccess::Owner), ("0660", SocketAccess::Group), ("0666", SocketAccess::Everyone)];

    fn mode(self) -> u32 {
        match self {
            SocketAccess::Owner => 0o600,
            SocketAccess::Group => 0o660,
            SocketAccess::Everyone => 0o666,
        }
    }

    /// The mode of a directory that the server makes for the socket.
    fn directory(self) -> u32 {
        match self {
            SocketAccess::Owner => 0o700,
            SocketAccess::Group => 0o750,
            SocketAccess::Everyone => 0o755,
        }
    }
}

/// The Unix socket of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// The absolute path.
    pub path: PathBuf,
    /// The users that may connect.
    pub access: SocketAccess,
}

/// The reason why a socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketFault {
    /// The path is too long for the kernel.
    #[error("is too long: the kernel takes {LONGEST} bytes, and the server needs some of them for a temporary name")]
    TooLong,
    /// Neither the directory nor the one above it exists.
    #[error("is in the directory {}, which does not exist, nor does the one above it", .0.display())]
    NoDirectory(PathBuf),
    /// Another user could put a socket of its own in the place.
    #[error("is in the directory {}, where other users may write", .0.display())]
    Shared(PathBuf),
    /// The directory belongs to another user, who could put a socket of its own in the place.
    #[error("is in the directory {}, which belongs to user {owner}, neither to root nor to the server", directory.display())]
    Owner {
        /// The directory.
        directory: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// A file of another kind is in the place. It is left there.
    #[error("is a file that is not a socket")]
    NotSocket,
    /// A process listens on the socket that is there.
    #[error("is a socket on which another process listens")]
    InUse,
    /// The operating system refuses.
    #[error("cannot be listened on: {0}")]
    Io(#[from] io::Error),
}

impl SocketFault {
    /// The way to mend it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            SocketFault::TooLong => "choose a shorter path, as in /run/wharfinger/wharfinger.sock",
            SocketFault::NoDirectory(_) => "make the directory (RuntimeDirectory=wharfinger in the unit does)",
            SocketFault::Shared(_) | SocketFault::Owner { .. } => {
                "use a directory of the server's own, with mode 0750 or 0755"
            }
            SocketFault::NotSocket => "remove the file, or choose another path",
            SocketFault::InUse => "stop the other server, or choose another path",
            SocketFault::Io(_) => "see that the server's user may write the directory",
        }
    }
}

impl UnixSocket {
    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Checks the path and its directory. A directory that is missing is made when the server starts.
    ///
    /// # Errors
    /// [`SocketFault`]: the server could not bind it, or another user could take its place.
    pub(crate) fn check(&self) -> Result<(), SocketFault> {
        let directory = self.parent();
        let length = |path: &Path| path.as_os_str().len();
        if length(&self.path) > LONGEST || length(directory) + TEMPORARY > LONGEST {
            return Err(SocketFault::TooLong);
        }
        match fs::metadata(directory) {
            Ok(about) if !about.is_dir() => return Err(SocketFault::NoDirectory(directory.into())),
            Ok(about) if about.mode() & 0o022 != 0 => return Err(SocketFault::Shared(directory.into())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let above = directory.parent().is_some_and(Path::is_dir);
                return if above { Ok(()) } else { Err(SocketFault::NoDirectory(directory.into())) };
            }
            Err(error) => return Err(error.into()),
        }
        match fs::symlink_metadata(&self.path) {
            Ok(about) if !about.file_type().is_socket() => Err(SocketFault::NotSocket),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Binds it. The file is removed when the second value is dropped.
    ///
    /// # Errors
    /// [`SocketFault`]: nothing has changed.
    pub(crate) async fn bind(&self) -> Result<(UnixListener, SocketFile), SocketFault> {
        self.check()?;
        let directory = self.parent();
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(self.access.directory()))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        let owner = fs::metadata(directory)?.uid();
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return Err(SocketFault::Owner { directory: directory.into(), owner });
        }
        if self.answers().await? {
            return Err(SocketFault::InUse);
        }
        let aside = aside(directory)?;
        let temporary = aside.join("s");
        let bound = self.bind_at(&temporary);
        if bound.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        let _ = fs::remove_dir(&aside);
        Ok(bound?)
    }

    fn bind_at(&self, temporary: &Path) -> io::Result<(UnixListener, SocketFile)> {
        let listener = UnixListener::bind(temporary)?;
        fs::set_permissions(temporary, fs::Permissions::from_mode(self.access.mode()))?;
        let about = fs::symlink_metadata(temporary)?;
        fs::rename(temporary, &self.path)?;
        Ok((listener, SocketFile { path: self.path.clone(), device: about.dev(), inode: about.ino() }))
    }

    /// Whether a process listens on the socket that is there. One that refuses connections is left over.
    async fn answers(&self) -> Result<bool, SocketFault> {
        match tokio::time::timeout(ASK, UnixStream::connect(&self.path)).await {
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(false),
            // Its queue of connections is full.
            Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(_)) | Err(_) => Ok(true),
        }
    }
}

/// Makes a directory that only this user may enter. One of an earlier process with the same id may be left over.
fn aside(directory: &Path) -> io::Result<PathBuf> {
    let mut last = None;
    for number in 0..10 {
        let aside = directory.join(format!(".w{}-{number}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&aside) {
            Ok(()) => return Ok(aside),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::AlreadyExists.into()))
}

/// The file of a socket that a server listens on. Dropping it removes the file, unless another one is in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let own = |about: fs::Metadata| (about.dev(), about.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(own) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(path: PathBuf) -> UnixSocket {
        UnixSocket { path, access: SocketAccess::default() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_from_the_first_moment_and_goes_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        for (name, access) in SocketAccess::NAMES {
            let socket = UnixSocket { path: folder.path().join(name).join("w.sock"), access };
            let (listener, file) = socket.bind().await.unwrap();
            assert_eq!(mode(&socket.path), u32::from_str_radix(name, 8).unwrap());
            assert_eq!(mode(socket.parent()), access.directory(), "the directory that the server made");
            assert!(UnixStream::connect(&socket.path).await.is_ok());
            let names: Vec<_> =
                fs::read_dir(socket.parent()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["w.sock"], "nothing is left aside");
            // A second server finds the first one, and takes nothing away.
            assert!(matches!(socket.bind().await, Err(SocketFault::InUse)));
            assert!(UnixStream::connect(&socket.path).await.is_ok());
            drop((listener, file));
            assert!(!socket.path.exists());
        }
    }

    #[tokio::test]
    async fn a_socket_that_no_process_listens_on_is_replaced_and_no_other_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("run");
        let socket = socket(directory.join("w.sock"));
        let (listener, first) = socket.bind().await.unwrap();
        drop(listener);
        let (_second_listener, second) = socket.bind().await.unwrap();
        drop(first);
        assert!(UnixStream::connect(&socket.path).await.is_ok(), "the former server leaves the file of this one");
        drop(second);
        fs::write(&socket.path, "of somebody").unwrap();
        assert!(matches!(socket.bind().await, Err(SocketFault::NotSocket)));
        assert_eq!(fs::read_to_string(&socket.path).unwrap(), "of somebody");
    }

    #[tokio::test]
    async fn a_directory_in_which_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("run");
        let socket = socket(directory.join("w.sock"));
        socket.check().unwrap();
        fs::create_dir(&directory).unwrap();
        for (mode, allowed) in [(0o755, true), (0o750, true), (0o770, false), (0o707, false), (0o1777, false)] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            let found = socket.check();
            assert_eq!(found.is_ok(), allowed, "{mode:o}: {found:?}");
            assert_eq!(socket.bind().await.is_ok(), allowed, "{mode:o}");
        }
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(&directory, Some(12_345), None).unwrap();
            assert!(matches!(socket.bind().await, Err(SocketFault::Owner { owner: 12_345, .. })));
        }
    }

    #[test]
    fn paths_that_the_kernel_does_not_take_are_found_before_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/w.sock");
        assert!(matches!(socket(deep).check(), Err(SocketFault::NoDirectory(_))));
        let long = folder.path().join("n".repeat(LONGEST));
        assert!(matches!(socket(long).check(), Err(SocketFault::TooLong)));
        let room = LONGEST - folder.path().as_os_str().len() - TEMPORARY - 1;
        for (length, fits) in [(room, true), (room + 1, false)] {
            let path = folder.path().join("d".repeat(length)).join("s");
            assert_eq!(socket(path).check().is_ok(), fits, "{length}");
        }
    }
}
