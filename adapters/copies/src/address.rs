//! Checks addresses of repositories and directories. Refuses those that git, ssh or a shell would read as an option or a command.

use wharfinger_adapter::settings::ConfigProblem;

/// Returns the problem of the setting with this path in the adapter's table.
pub(crate) fn bad<const N: usize>(
    path: [&str; N],
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> ConfigProblem {
    ConfigProblem::new(message, remedy).at(path)
}

/// Checks the name of a part: the name of its directory in the tree and of its metadata directory. Returns the fault.
pub(crate) fn check_directory(dir: &str) -> Result<(), &'static str> {
    if dir.is_empty() {
        return Err("is empty");
    }
    if dir.len() > 100 {
        return Err("is longer than 100 bytes");
    }
    if dir.starts_with(['-', '.']) {
        return Err("begins with '-' or '.'");
    }
    if dir.contains('/') {
        return Err("lies in another");
    }
    // Parameters of a lease separate names by commas. Shells and other file systems do not accept the other characters.
    if dir.chars().any(|c| c.is_control() || " ,=\\:*?\"'<>|$`".contains(c)) || dir.ends_with('.') {
        return Err("has a blank, a control character or one of ,=\\:*?\"'<>|$` or ends with '.'");
    }
    Ok(())
}

/// Checks the address of a repository. Git reads a leading `-` as an option and `ext::` as a command (gitremote-helpers(7)). Ssh
/// reads a host `-oProxyCommand=…` as an option (CVE-2017-1000117).
pub(crate) fn check_repository(key: &str, repository: &str) -> Result<(), ConfigProblem> {
    let remedy = "use https://, ssh://, git://, file://, user@host:path or an absolute path";
    let fault = |message: String, remedy: &str| ConfigProblem::new(message, remedy);
    if repository.is_empty() {
        return Err(fault(format!("`{key}` is empty"), remedy));
    }
    if repository.chars().any(char::is_control) {
        return Err(fault(format!("`{key}` has control characters"), remedy));
    }
    if repository.starts_with('-') {
        return Err(fault(format!("`{key}` {repository:?} begins with '-' and would be an option"), remedy));
    }
    if repository.starts_with('/') {
        return Ok(());
    }
    if let Some((helper, _)) = repository.split_once("::")
        && helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return Err(fault(format!("`{key}` uses the transport helper {helper:?}, which may run commands"), remedy));
    }
    if let Some((scheme, rest)) = repository.split_once("://") {
        if !["https", "ssh", "git", "file"].contains(&scheme) {
            return Err(fault(format!("`{key}` has the transport {scheme:?}"), remedy));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme == "file" {
            let fits = authority.is_empty() && !path.is_empty();
            return if fits {
                Ok(())
            } else {
                Err(fault(format!("`{key}` {repository:?} is not a file URL"), "write file:///absolute/path"))
            };
        }
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(fault(
                format!("`{key}` has a password in it, which every holder of a copy could read"),
                "keep it in ~/.netrc on the host or use ssh",
            ));
        }
        if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
            return Err(fault(format!("`{key}` {repository:?} names no host"), remedy));
        }
        return Ok(());
    }
    // Git reads an address with a colon before the first slash as user@host:path (git-clone(1), "GIT URLS").
    match repository.split_once(':') {
        Some((host, path)) if !host.is_empty() && !host.contains('/') && !path.is_empty() => {
            let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
            if name.is_empty() || name.starts_with('-') || path.starts_with('-') {
                return Err(fault(format!("`{key}` {repository:?} would be an option of ssh"), remedy));
            }
            Ok(())
        }
        _ => Err(fault(format!("`{key}` {repository:?} is neither a URL nor an absolute path"), remedy)),
    }
}

/// Checks that a directory is an absolute path below `/` without `..`, in which files may be created and removed.
pub(crate) fn check_root(key: &str, root: &str) -> Result<(), ConfigProblem> {
    let fits = root.starts_with('/')
        && !root.trim_matches('/').is_empty()
        && !root.chars().any(char::is_control)
        && root.split('/').all(|part| part != ".." && part != ".");
    if fits {
        Ok(())
    } else {
        let message = format!("`{key}` {root:?} is not an absolute path below /");
        Err(ConfigProblem::new(message, "name one, without '..'"))
    }
}

/// The address of the server of git-lfs for a repository, by the rule of git-lfs itself (docs/api/server-discovery.md of git-lfs).
pub(crate) fn lfs_endpoint(repository: &str) -> String {
    if repository.starts_with('/') {
        return format!("file://{repository}");
    }
    if !repository.starts_with("https://") {
        return repository.to_string();
    }
    let base = repository.trim_end_matches('/');
    format!("{}.git/info/lfs", base.strip_suffix(".git").unwrap_or(base))
}

#[cfg(test)]
mod tests {
    use super::lfs_endpoint;

    #[test]
    fn the_server_follows_from_the_address() {
        for (repository, server) in [
            ("https://example.org/a.git", "https://example.org/a.git/info/lfs"),
            ("https://example.org/a/", "https://example.org/a.git/info/lfs"),
            ("/srv/a.git", "file:///srv/a.git"),
            ("file:///srv/a.git", "file:///srv/a.git"),
            ("git@example.org:a.git", "git@example.org:a.git"),
            ("ssh://git@example.org/a.git", "ssh://git@example.org/a.git"),
        ] {
            assert_eq!(lfs_endpoint(repository), server);
        }
    }
}
