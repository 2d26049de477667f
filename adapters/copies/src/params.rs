//! The parameters of a lease on a working copy.

use std::collections::BTreeMap;
use wharfinger_adapter::Failure;

/// The parameters of a lease for all parts of a copy. The keys of [`Wanted`] are for the default part. With a directory in front
/// they are for another part (`lib.branch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    /// The wanted commit of each part.
    pub(crate) wanted: Vec<Wanted>,
    /// `merge`: the refs to merge onto the commit of each part, in this order.
    pub(crate) merges: Vec<Vec<Wanted>>,
    /// `repositories`: whether the lease needs each part. All parts if absent; the default part always.
    pub(crate) needed: Vec<bool>,
    /// `strict`: parts that the lease does not need are moved out of the tree.
    pub(crate) strict: bool,
}

impl Requested {
    /// Parses the parameters of a lease. `parts`: the directories of the parts, or one empty name. `default`: an index in `parts`.
    ///
    /// # Errors
    /// `UNKNOWN_REPOSITORY`, `BAD_PARAMETER` and `CONFLICTING_PARAMETERS` (request), and those of [`Wanted::parse`].
    pub(crate) fn parse(params: &BTreeMap<String, String>, parts: &[&str], default: usize) -> Result<Self, Failure> {
        let several = parts.iter().any(|part| !part.is_empty());
        let place = |dir: &str| parts.iter().position(|part| several && *part == dir);
        let unknown = |dir: &str| {
            let has = if several { parts.join(", ") } else { "one repository, without a name".to_string() };
            Failure::request("UNKNOWN_REPOSITORY", format!("the pool has no repository {dir:?}; use one of: {has}"))
        };
        let mut own: Vec<BTreeMap<String, String>> = vec![BTreeMap::new(); parts.len()];
        let mut needed: Option<Vec<bool>> = None;
        let mut strict = false;
        for (key, value) in params {
            match (key.as_str(), key.rsplit_once('.')) {
                ("repositories", _) => {
                    let mut list: Vec<bool> = (0..parts.len()).map(|at| at == default).collect();
                    for dir in value.split(',').map(str::trim).filter(|dir| !dir.is_empty()) {
                        list[place(dir).ok_or_else(|| unknown(dir))?] = true;
                    }
                    needed = Some(list);
                }
                ("strict", _) => {
                    strict = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        other => {
                            let text = format!("strict is {other:?}; write true or false");
                            return Err(Failure::request("BAD_PARAMETER", text));
                        }
                    };
                }
                (_, Some((dir, short))) if place(dir).is_some() => {
                    if own[place(dir).unwrap_or(default)].insert(short.to_string(), value.clone()).is_some() {
                        let text = format!("both {short} and {key} select the commit of {dir}; give one of them");
                        return Err(Failure::request("CONFLICTING_PARAMETERS", text));
                    }
                }
                (own_key, _) if own_key.starts_with("x-") => {}
                (_, Some((dir, "branch" | "tag" | "ref" | "commit" | "merge"))) => return Err(unknown(dir)),
                _ => {
                    if own[default].insert(key.clone(), value.clone()).is_some() {
                        let text =
                            format!("both {key} and {}.{key} select the commit; give one of them", parts[default]);
                        return Err(Failure::request("CONFLICTING_PARAMETERS", text));
                    }
                }
            }
        }
        let needed = needed.unwrap_or_else(|| vec![true; parts.len()]);
        let (mut wanted, mut merged) = (Vec::new(), Vec::new());
        for (at, params) in own.iter().enumerate() {
            let part = parts[at];
            if let (false, Some(key)) = (needed[at], params.keys().next()) {
                return Err(Failure::request(
                    "CONFLICTING_PARAMETERS",
                    format!(
                        "the lease has {part}.{key}, and its repositories do not include {part}; add {part}, or leave out {part}.{key}"
                    ),
                ));
            }
            let named = |mut failure: Failure| {
                if at != default {
                    failure.message = format!("{part}: {}", failure.message);
                }
                failure
            };
            wanted.push(Wanted::parse(params).map_err(named)?);
            merged.push(merges(params.get("merge")).map_err(named)?);
        }
        Ok(Self { wanted, merges: merged, needed, strict })
    }
}

/// The wanted commit of a lease, as named by its parameters. A lease has at most one of these keys; without one it gets the pool's
/// default branch. Keys that begin with `x-` belong to the holder and are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No key: the default branch.
    Default,
    /// `branch`: the tip of this branch, without `refs/heads/`.
    Branch(String),
    /// `tag`: the commit of this tag, without `refs/tags/`.
    Tag(String),
    /// `ref`: a full name (`refs/pull/7/head`), or the short name of a branch or a tag.
    Ref(String),
    /// `commit`: 40 or 64 hexadecimal digits, or at least 7 with which one commit on a branch begins.
    Commit(String),
}

impl Wanted {
    /// Parses the parameters of a lease.
    ///
    /// # Errors
    /// `UNKNOWN_PARAMETER`, `CONFLICTING_PARAMETERS`, `BAD_REF_NAME` and `BAD_COMMIT` (request).
    pub fn parse(params: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let mut found: Option<(&str, Wanted)> = None;
        for (key, value) in params {
            let wanted = match key.as_str() {
                "branch" => Wanted::Branch(named(key, value, "refs/heads/")?),
                "tag" => Wanted::Tag(named(key, value, "refs/tags/")?),
                "ref" if value == "HEAD" => Wanted::Default,
                "ref" => Wanted::Ref(named(key, value, "")?),
                "commit" => Wanted::Commit(commit(value)?),
                // See [`merges`].
                "merge" => continue,
                other if other.starts_with("x-") => continue,
                other => {
                    return Err(Failure::request(
                        "UNKNOWN_PARAMETER",
                        format!(
                            "working copies have no parameter {other:?}; use one of branch, tag, commit, ref, and merge"
                        ),
                    ));
                }
            };
            if let Some((former, _)) = found {
                return Err(Failure::request(
                    "CONFLICTING_PARAMETERS",
                    format!("both {former} and {key} select the commit; give one of them"),
                ));
            }
            found = Some((key, wanted));
        }
        Ok(found.map_or(Wanted::Default, |(_, wanted)| wanted))
    }

    /// Names the wanted commit in a message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Wanted::Default => "the default branch".to_string(),
            Wanted::Branch(name) => format!("branch {name:?}"),
            Wanted::Tag(name) => format!("tag {name:?}"),
            Wanted::Ref(name) => format!("ref {name:?}"),
            Wanted::Commit(name) => format!("commit {name}"),
        }
    }

    /// Returns the name that the lease gave, for the message of a merge.
    pub(crate) fn name(&self) -> &str {
        match self {
            Wanted::Default => "HEAD",
            Wanted::Branch(name) | Wanted::Tag(name) | Wanted::Ref(name) | Wanted::Commit(name) => name,
        }
    }
}

/// Parses `merge`: the refs to merge onto the wanted commit, in this order. Full commit ids, or names as for `ref`, separated by
/// commas.
///
/// # Errors
/// `BAD_REF_NAME` and `TOO_MANY_MERGES` (request).
pub(crate) fn merges(value: Option<&String>) -> Result<Vec<Wanted>, Failure> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let found: Vec<Wanted> = value.split(',').map(str::trim).map(one_merge).collect::<Result<_, _>>()?;
    if found.len() > MERGES_MAX {
        return Err(Failure::request(
            "TOO_MANY_MERGES",
            format!("merge names {} refs; give at most {MERGES_MAX}, and merge the others before", found.len()),
        ));
    }
    Ok(found)
}

const MERGES_MAX: usize = 100;

fn one_merge(name: &str) -> Result<Wanted, Failure> {
    // An abbreviated id could also be the name of a branch.
    if matches!(name.len(), 40 | 64) && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Wanted::Commit(name.to_ascii_lowercase()));
    }
    if name == "HEAD" {
        return Ok(Wanted::Default);
    }
    Ok(Wanted::Ref(named("merge", name, "")?))
}

fn named(key: &str, value: &str, prefix: &str) -> Result<String, Failure> {
    let name = value.strip_prefix(prefix).unwrap_or(value);
    check_ref_name(name).map_err(|why| {
        Failure::request("BAD_REF_NAME", format!("{key} {value:?} {why}; give a name that git allows"))
    })?;
    Ok(name.to_string())
}

fn commit(value: &str) -> Result<String, Failure> {
    let fits = matches!(value.len(), 7..=40 | 64) && value.bytes().all(|b| b.is_ascii_hexdigit());
    if fits {
        return Ok(value.to_ascii_lowercase());
    }
    Err(Failure::request(
        "BAD_COMMIT",
        format!(
            "commit {value:?} is not 7 to 40, or 64, hexadecimal digits; give a name of a branch or tag in branch, tag or ref"
        ),
    ))
}

/// Checks a name of one or more levels by the rules of git-check-ref-format(1). A leading `-` is refused, too; git refuses it for
/// branches alone. Returns the fault.
pub(crate) fn check_ref_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > 1024 {
        return Err("is longer than 1024 bytes");
    }
    if name.starts_with('-') {
        return Err("begins with '-'");
    }
    if name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c)) {
        return Err("has a blank, a control character or one of ~^:?*[\\");
    }
    if name == "@" || name.contains("@{") {
        return Err("is or has an '@' that git reads as something else");
    }
    if name.contains("..") {
        return Err("has '..'");
    }
    if name.ends_with('.') {
        return Err("ends with '.'");
    }
    for part in name.split('/') {
        if part.is_empty() {
            return Err("has an empty part between slashes");
        }
        if part.starts_with('.') || part.ends_with(".lock") {
            return Err("has a part that begins with '.' or ends with '.lock'");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn parts_are_asked_for_by_their_directories() {
        let names = ["app", "lib", "my.lib"];
        let branch = |name: &str| Wanted::Branch(name.into());
        let read = |pairs: &[(&str, &str)]| Requested::parse(&params(pairs), &names, 0);
        for (pairs, wanted, needed, strict) in [
            (&[][..], [Wanted::Default, Wanted::Default, Wanted::Default], [true; 3], false),
            (&[("branch", "a"), ("my.lib.branch", "b")], [branch("a"), Wanted::Default, branch("b")], [true; 3], false),
            (
                &[("app.branch", "a"), ("repositories", " lib ,app"), ("lib.branch", "l"), ("strict", "true")],
                [branch("a"), branch("l"), Wanted::Default],
                [true, true, false],
                true,
            ),
            (
                &[("repositories", ""), ("x-lib.branch", "q")],
                [Wanted::Default, Wanted::Default, Wanted::Default],
                [true, false, false],
                false,
            ),
        ] {
            let merges = vec![Vec::new(); wanted.len()];
            let asked = Requested { wanted: wanted.to_vec(), merges, needed: needed.to_vec(), strict };
            assert_eq!(read(pairs), Ok(asked), "{pairs:?}");
        }
        for (pairs, reason, says) in [
            (&[("repositories", "lib,nope")][..], "UNKNOWN_REPOSITORY", "app, lib, my.lib"),
            (&[("nope.branch", "x")], "UNKNOWN_REPOSITORY", "app, lib, my.lib"),
            (&[("lib.brnach", "x")], "UNKNOWN_PARAMETER", "lib: "),
            (&[("branch", "a"), ("app.tag", "b")], "CONFLICTING_PARAMETERS", "branch and tag"),
            (&[("branch", "a"), ("app.branch", "b")], "CONFLICTING_PARAMETERS", "app.branch"),
            (&[("repositories", "app"), ("lib.branch", "b")], "CONFLICTING_PARAMETERS", "lib.branch"),
            (&[("strict", "yes")], "BAD_PARAMETER", "true or false"),
            (&[("lib.branch", "--x")], "BAD_REF_NAME", "lib: "),
            (&[("lib.merge", "--x")], "BAD_REF_NAME", "lib: "),
            (&[("nope.merge", "x")], "UNKNOWN_REPOSITORY", "app, lib, my.lib"),
        ] {
            let failure = read(pairs).expect_err(&format!("{pairs:?}"));
            assert_eq!((failure.blame, failure.reason), (wharfinger_adapter::Blame::Request, reason), "{pairs:?}");
            assert!(failure.message.contains(says), "{failure}");
        }
        let merged = read(&[("merge", "a"), ("lib.merge", "b,c")]).expect("merges");
        let named = |name: &str| Wanted::Ref(name.into());
        assert_eq!(merged.merges, [vec![named("a")], vec![named("b"), named("c")], vec![]]);
        let one = |pairs: &[(&str, &str)]| Requested::parse(&params(pairs), &[""], 0);
        assert_eq!(one(&[("branch", "a")]).map(|asked| asked.wanted), Ok(vec![branch("a")]));
        assert_eq!(one(&[("lib.branch", "a")]).map_err(|failure| failure.reason), Err("UNKNOWN_REPOSITORY"));
        assert_eq!(one(&[("repositories", "lib")]).map_err(|failure| failure.reason), Err("UNKNOWN_REPOSITORY"));
        assert_eq!(one(&[(".branch", "lib")]).map_err(|failure| failure.reason), Err("UNKNOWN_REPOSITORY"));
    }

    #[test]
    fn names_are_read() {
        for (pairs, wanted) in [
            (&[][..], Wanted::Default),
            (&[("x-build", "--anything")], Wanted::Default),
            (&[("branch", "main")], Wanted::Branch("main".into())),
            (&[("branch", "refs/heads/feat/x")], Wanted::Branch("feat/x".into())),
            (&[("tag", "v1.0"), ("x-a", "b")], Wanted::Tag("v1.0".into())),
            (&[("ref", "refs/pull/7/head")], Wanted::Ref("refs/pull/7/head".into())),
            (&[("ref", "HEAD")], Wanted::Default),
            (&[("commit", "ABCDEF1")], Wanted::Commit("abcdef1".into())),
        ] {
            assert_eq!(Wanted::parse(&params(pairs)), Ok(wanted), "{pairs:?}");
        }
    }

    #[test]
    fn merges_are_read_in_their_order() {
        let read = |text: &str| merges(Some(&text.to_string()));
        let id = "0123456789abcdef0123456789ABCDEF01234567";
        assert_eq!(merges(None), Ok(vec![]));
        assert_eq!(
            read(&format!("side, refs/pull/7/head,{id},HEAD")),
            Ok(vec![
                Wanted::Ref("side".into()),
                Wanted::Ref("refs/pull/7/head".into()),
                Wanted::Commit(id.to_ascii_lowercase()),
                Wanted::Default,
            ])
        );
        for wrong in ["", "a,", "a,,b", "-a", "a b", "a:b", "a..b", "a\nb", "a,*"] {
            let failure = read(wrong).expect_err(wrong);
            assert_eq!(
                (failure.blame, failure.reason),
                (wharfinger_adapter::Blame::Request, "BAD_REF_NAME"),
                "{wrong:?}"
            );
        }
        assert_eq!(read(&vec!["a"; 101].join(",")).expect_err("many").reason, "TOO_MANY_MERGES");
    }

    #[test]
    fn an_invalid_name_is_the_requests_fault() {
        for (pairs, reason) in [
            (&[("branch", "--upload-pack=x")][..], "BAD_REF_NAME"),
            (&[("branch", "")], "BAD_REF_NAME"),
            (&[("branch", "a..b")], "BAD_REF_NAME"),
            (&[("branch", "a b")], "BAD_REF_NAME"),
            (&[("branch", "a/.b")], "BAD_REF_NAME"),
            (&[("branch", "a.lock/b")], "BAD_REF_NAME"),
            (&[("branch", "a//b")], "BAD_REF_NAME"),
            (&[("branch", "a/")], "BAD_REF_NAME"),
            (&[("branch", "*")], "BAD_REF_NAME"),
            (&[("tag", "-d")], "BAD_REF_NAME"),
            (&[("tag", "v1^{}")], "BAD_REF_NAME"),
            (&[("ref", "refs/heads/a:refs/heads/b")], "BAD_REF_NAME"),
            (&[("ref", "@")], "BAD_REF_NAME"),
            (&[("ref", "main@{1}")], "BAD_REF_NAME"),
            (&[("branch", "a\nb")], "BAD_REF_NAME"),
            (&[("commit", "abc")], "BAD_COMMIT"),
            (&[("commit", "main")], "BAD_COMMIT"),
            (&[("commit", "--all000")], "BAD_COMMIT"),
            (&[("branch", "a"), ("tag", "b")], "CONFLICTING_PARAMETERS"),
            (&[("brnach", "a")], "UNKNOWN_PARAMETER"),
        ] {
            let failure = Wanted::parse(&params(pairs)).expect_err(&format!("{pairs:?}"));
            assert_eq!((failure.blame, failure.reason), (wharfinger_adapter::Blame::Request, reason), "{pairs:?}");
        }
    }
}
