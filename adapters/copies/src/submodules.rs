//! Submodules: working copies inside other working copies, each at the commit that its parent names.
//!
//! A submodule is prepared in the same way as its parent, from a mirror of its own, with the same proof. Its `.git` is a directory
//! in the submodule. A submodule is in its parent's tree during a lease only. Before the tree changes, it is moved to the parent's
//! metadata (`sub/<hash of its path>/parked`), and the tree is proved without it. Then it is moved back. A damaged submodule is
//! cloned anew by the prepare that finds it: a check of the resource does not inspect submodules.
//!
//! Of `.gitmodules` only the addresses count, in the forms that a pool may have. Other settings are ignored: `update` may name a
//! command (gitmodules(5)).

use crate::address::check_repository;
use crate::clone::clone;
use crate::error::StepError;
use crate::git::{LIST_SUBMODULES, PARK_SUBMODULES, REMOVE_SUBMODULE, RESTORE_SUBMODULE, WorkingCopy, hashed};
use std::collections::BTreeMap;
use wharfinger_adapter::{Blame, Exit, Failure};

/// Maximum number of submodules of a commit.
const MODULES_MAX: usize = 256;

/// One submodule of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Submodule {
    path: String,
    /// The commit that the parent names.
    pub(crate) id: String,
    address: String,
}

/// Lists the submodules of the commit that is in the tree.
///
/// # Errors
/// `TOO_MANY_SUBMODULES`, `SUBMODULE_UNKNOWN` and `SUBMODULE_REFUSED` blame the request.
pub(crate) async fn list(parent: &WorkingCopy) -> Result<Vec<Submodule>, StepError> {
    let limit = parent.config.command_timeout();
    let output = parent.output(LIST_SUBMODULES, &[], limit).await?;
    if output.exit != Exit::Code(0) {
        parent.read_output(LIST_SUBMODULES, output.clone(), limit)??;
    }
    Ok(read(&output.stdout, parent)?)
}

/// The working copy of a submodule.
pub(crate) fn working_copy(parent: &WorkingCopy, module: &Submodule) -> WorkingCopy {
    let mut config = parent.config.clone();
    config.repository = module.address.clone();
    config.default_branch = None;
    // The commit is seldom the tip of a branch, so a shallow fetch of the branches would lack it.
    config.depth = None;
    WorkingCopy {
        tree: format!("{}/{}", parent.tree, module.path),
        meta_dir: format!("{}/sub/{}", parent.meta_dir, hashed(&module.path)),
        part: module.path.clone(),
        locator: String::new(),
        // A tree names commits of its own object format only.
        format: Some(if module.id.len() == 64 { "sha256" } else { "sha1" }.to_string()),
        config,
        ..parent.clone()
    }
}

/// Moves the submodule to its place in the tree. Returns whether it is there; otherwise it has to be cloned.
pub(crate) async fn move_into_place(parent: &WorkingCopy, module: &Submodule) -> Result<bool, StepError> {
    let args = [module.path.as_str(), &hashed(&module.path)];
    Ok(parent.run(RESTORE_SUBMODULE, &args, parent.config.command_timeout()).await? == "there")
}

/// Removes a submodule with its metadata.
pub(crate) async fn remove(copy: &WorkingCopy) -> Result<(), StepError> {
    copy.run(REMOVE_SUBMODULE, &[], copy.config.command_timeout()).await.map(drop)
}

/// Moves the submodules out of the tree, and returns them where they are then. Their addresses are empty: the next commit names
/// them.
pub(crate) async fn park(parent: &WorkingCopy) -> Result<Vec<WorkingCopy>, StepError> {
    let names = parent.run(PARK_SUBMODULES, &[], parent.config.command_timeout()).await?;
    let parked = names.lines().map(|name| {
        let meta_dir = format!("{}/sub/{name}", parent.meta_dir);
        let mut copy = WorkingCopy { tree: format!("{meta_dir}/parked"), meta_dir, format: None, ..parent.clone() };
        copy.config.repository = String::new();
        copy
    });
    Ok(parked.collect())
}

/// Clones the submodule into its place.
pub(crate) async fn clone_submodule(copy: &WorkingCopy, op: u64) -> Result<(), StepError> {
    let format = clone(copy, op).await?;
    if copy.format.as_ref() != Some(&format) && copy.format.is_some() {
        let text = format!(
            "{} has {format} ids, and its parent names a commit of another format; use a repository of the same format",
            copy.config.repository
        );
        return Err(bad_commit("SUBMODULE_FORMAT", text).into());
    }
    Ok(())
}

/// Blames the parent's commit if the remote lacks the commit that it names.
pub(crate) fn blame_parent(error: StepError, module: &Submodule) -> StepError {
    match error {
        StepError::Failure(failure)
            if failure.blame == Blame::Request && ["REF_NOT_FOUND", "REF_NOT_A_COMMIT"].contains(&failure.reason) =>
        {
            let text =
                format!("the parent names commit {}, which {} does not have; push it there", module.id, module.address);
            StepError::Failure(Failure::request("SUBMODULE_COMMIT_MISSING", text))
        }
        other => other,
    }
}

/// Returns a failure that blames the commit, and so the request.
pub(crate) fn bad_commit(reason: &'static str, text: String) -> Failure {
    Failure::request(reason, text)
}

/// The remedy for a submodule without an address. `git add` of a clone inside another creates one.
const MEND: &str = "add it to .gitmodules, or remove it (git rm --cached PATH)";

/// Returns the paths of the first three links, for a message.
fn first_paths(links: &[&str]) -> String {
    let paths: Vec<&str> = links.iter().take(3).filter_map(|link| Some(link.split_once(' ')?.1)).collect();
    paths.join(", ")
}

/// Parses the output of `list_submodules.sh`.
fn read(stdout: &[u8], parent: &WorkingCopy) -> Result<Vec<Submodule>, Failure> {
    let text = String::from_utf8_lossy(stdout);
    let mut records = text.split('\0');
    let links: Vec<&str> = records.by_ref().take_while(|record| !record.is_empty()).collect();
    if links.is_empty() {
        return Ok(Vec::new());
    }
    if links.len() > MODULES_MAX {
        return Err(bad_commit(
            "TOO_MANY_SUBMODULES",
            format!("the commit has {} submodules; a pool takes at most {MODULES_MAX}", links.len()),
        ));
    }
    match records.next() {
        Some("read") => {}
        Some("none") => {
            let text = format!("the commit has the submodules {} and no file .gitmodules; {MEND}", first_paths(&links));
            return Err(bad_commit("SUBMODULE_UNKNOWN", text));
        }
        _ => {
            let text = format!(
                "the commit has the submodules {}, and git cannot read its .gitmodules; correct the file (git config -f .gitmodules --list)",
                first_paths(&links)
            );
            return Err(bad_commit("SUBMODULE_UNKNOWN", text));
        }
    }
    let addresses = addresses(records)?;
    links
        .into_iter()
        .filter_map(|link| link.split_once(' '))
        .map(|(id, path)| {
            check_path(path).map_err(|why| bad_commit("SUBMODULE_REFUSED", format!("submodule {path:?} {why}")))?;
            let Some(address) = addresses.get(path) else {
                let text = format!("submodule {path:?} has no address in .gitmodules; {MEND}");
                return Err(bad_commit("SUBMODULE_UNKNOWN", text));
            };
            let address = parent.config.rewritten(&resolve(&parent.config.repository, address));
            check_address(&address, parent).map_err(|why| {
                bad_commit("SUBMODULE_REFUSED", format!("submodule {path:?} has the address {address:?}: {why}"))
            })?;
            Ok(Submodule { path: path.to_string(), id: id.to_string(), address })
        })
        .collect()
}

/// Returns the addresses by path, from the records of `git config --file .gitmodules --list -z`.
fn addresses<'a>(records: impl Iterator<Item = &'a str>) -> Result<BTreeMap<&'a str, &'a str>, Failure> {
    let (mut paths, mut urls) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in records.filter_map(|record| record.split_once('\n')) {
        // A name may have dots.
        let Some((name, key)) = key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        if name.split(['/', '\\']).any(|part| part == "..") || name.is_empty() {
            return Err(bad_commit(
                "SUBMODULE_REFUSED",
                format!("submodule name {name:?} in .gitmodules leads elsewhere; rename it"),
            ));
        }
        match key {
            "path" => drop(paths.insert(name, value)),
            "url" => drop(urls.insert(name, value)),
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    for (name, path) in paths {
        let Some(url) = urls.get(name) else { continue };
        if found.insert(path, *url).is_some_and(|other| other != *url) {
            return Err(bad_commit(
                "SUBMODULE_REFUSED",
                format!("submodule {path:?} has two addresses in .gitmodules; remove one"),
            ));
        }
    }
    Ok(found)
}

/// Checks the path of a submodule by the rules of git, and refuses paths that lead out of the tree. Returns the fault.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > 1000 || path.chars().any(char::is_control) || path.contains('\u{fffd}') {
        return Err("has a path that is longer than 1000 bytes, or has control characters or bytes that are not UTF-8");
    }
    if path.starts_with('-') {
        return Err("has a path that begins with '-'");
    }
    if path.split('/').any(|part| ["", ".", ".."].contains(&part) || part.eq_ignore_ascii_case(".git")) {
        return Err("has a path that leads elsewhere, or into .git");
    }
    Ok(())
}

/// Resolves an address relative to that of the parent, as git does (git-submodule(1), "add").
fn resolve(parent: &str, url: &str) -> String {
    if !url.starts_with("./") && !url.starts_with("../") {
        return url.to_string();
    }
    let (mut base, mut rest, mut between) = (parent.trim_end_matches('/'), url, '/');
    loop {
        if let Some(more) = rest.strip_prefix("./") {
            rest = more;
        } else if let Some(more) = rest.strip_prefix("../") {
            rest = more;
            base = match base.rsplit_once('/') {
                Some((up, _)) => up,
                None => {
                    between = ':';
                    base.rsplit_once(':').map_or("", |(up, _)| up)
                }
            };
        } else {
            return format!("{base}{between}{rest}").trim_end_matches('/').to_string();
        }
    }
}

fn is_local(address: &str) -> bool {
    address.starts_with('/') || address.starts_with("file://")
}

fn check_address(address: &str, parent: &WorkingCopy) -> Result<(), String> {
    check_repository("address", address).map_err(|problem| problem.to_string())?;
    if is_local(address) && !is_local(&parent.config.repository) {
        return Err("it is a path on the host, and the parent's address is not; use a URL".to_string());
    }
    // A later part of the address could lead out of an allowed prefix.
    if address.split('/').any(|part| part == ".." || part == ".") || address.to_ascii_lowercase().contains("%2e") {
        return Err("its path has a '.' or '..'; write it without".to_string());
    }
    let allowed = &parent.config.submodule_urls;
    if allowed.is_empty() || allowed.iter().any(|prefix| address.starts_with(prefix.as_str())) {
        Ok(())
    } else {
        Err(format!(
            "no prefix of the pool's submodule_urls fits it: {}; use another address, or add a prefix",
            allowed.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_are_resolved_as_git_does() {
        for (parent, url, address) in [
            ("https://example.org/team/a.git", "../b.git", "https://example.org/team/b.git"),
            ("https://example.org/team/a.git/", "../../other/b.git", "https://example.org/other/b.git"),
            ("https://example.org/team/a.git", "./b.git", "https://example.org/team/a.git/b.git"),
            ("git@example.org:team/a.git", "../b.git", "git@example.org:team/b.git"),
            ("git@example.org:a.git", "../b.git", "git@example.org:b.git"),
            ("/srv/a.git", "../b.git", "/srv/b.git"),
            ("/srv/a.git", "../sub/./b.git/", "/srv/sub/./b.git"),
            ("https://example.org/a.git", "../../../x", "https:/x"),
            ("a.git", "../../x", ":x"),
            ("/srv/a.git", "https://example.org/b.git", "https://example.org/b.git"),
        ] {
            assert_eq!(resolve(parent, url), address, "{parent} {url}");
        }
    }

    #[test]
    fn paths_lead_nowhere_else() {
        for fine in ["lib", "third party/lib", "a/b/c", "ümlaut", ".gitx", "a..b"] {
            assert_eq!(check_path(fine), Ok(()), "{fine}");
        }
        for wrong in ["", "..", "a/../b", "/a", "a/", "a//b", ".git", "a/.GIT/b", "-x", "a\nb", "./a"] {
            assert!(check_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn gitmodules_gives_addresses_and_nothing_else() {
        let read = |text: &'static str| addresses(text.split('\0'));
        assert_eq!(
            read(
                "submodule.a.b.path\nx\0submodule.a.b.url\n../u\0submodule.a.b.update\n!touch /tmp/x\0core.fsmonitor\nx\0submodule.c.path\ny\0"
            ),
            Ok(BTreeMap::from([("x", "../u")]))
        );
        for wrong in [
            "submodule.../../x.path\nx\0submodule.../../x.url\nu\0",
            "submodule.a.path\nx\0submodule.a.url\nu\0submodule.b.path\nx\0submodule.b.url\nv\0",
        ] {
            assert_eq!(read(wrong).map_err(|failure| failure.reason), Err("SUBMODULE_REFUSED"), "{wrong}");
        }
    }
}
