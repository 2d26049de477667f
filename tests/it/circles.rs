//! No file of the core or of an adapter imports a file that imports it back, directly or by others.

use crate::arch::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The adapters, and their work on hosts.
const FOLDERS: [&str; 6] = [
    "adapters/copies/src",
    "adapters/ec2/src",
    "adapters/fake/src",
    "adapters/host/src",
    "adapters/local/src",
    "adapters/ssh/src",
];

type Imports = BTreeMap<String, BTreeSet<String>>;

/// The first names of each path behind `crate::`, outside of comments and tests.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default().trim().to_string() + " ").collect();
    let name = |path: &str| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            found.insert(name(path));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ if start && !c.is_whitespace() => {
                    start = false;
                    found.insert(name(&group[at..]));
                }
                _ => {}
            }
        }
    }
    found
}

/// The files of a folder by name, with the files of the same folder that each imports.
fn files(folder: &str) -> Imports {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let direct = sources(folder).into_iter().filter_map(|(path, text)| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().strip_suffix(".rs").unwrap().to_string();
        // The face of the crate re-exports its files; a folder holds tests.
        (name != "lib" && !name.contains('/')).then_some((name, text))
    });
    let texts: BTreeMap<String, String> = direct.collect();
    let names: BTreeSet<String> = texts.keys().cloned().collect();
    texts.into_iter().map(|(name, text)| (name, &imports(&text) & &names)).collect()
}

/// A circle of imports, if there is one: each file imports the next, and the last the first.
fn circle(files: &Imports) -> Option<Vec<String>> {
    fn visit(files: &Imports, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        let last = path.last().unwrap().clone();
        for next in &files[&last] {
            if let Some(at) = path.iter().position(|file| file == next) {
                return Some(path[at..].to_vec());
            }
            if !done.contains(next) {
                path.push(next.clone());
                if let Some(found) = visit(files, path, done) {
                    return Some(found);
                }
                path.pop();
            }
        }
        done.insert(last);
        None
    }
    let mut done = BTreeSet::new();
    files.keys().find_map(|file| visit(files, &mut vec![file.clone()], &mut done))
}

#[test]
fn no_file_of_an_adapter_imports_one_that_imports_it_back() {
    let mut arrows = 0;
    for folder in FOLDERS {
        let files = files(folder);
        arrows += files.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!(circle(&files), None, "{folder}: move what both files need into a third");
    }
    assert!(arrows > 100, "{arrows} imports were read");
}

/// The paths of a use tree, whose text may go on behind it. Returns the rest of the text.
fn tree<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = tree(rest, prefix, found).trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = [prefix, &[name.to_string()]].concat();
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => tree(rest, &path, found),
        _ if name.is_empty() => rest,
        _ => {
            found.push(path);
            rest
        }
    }
}

/// The files of the core, with the files that each names. A name that the crate or a folder re-exports leads to the file
/// that defines it, if only one does.
fn files_of_the_core(texts: &BTreeMap<String, String>) -> Imports {
    let code = |text: &str| -> String {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        text.lines().map(|line| line.split("//").next().unwrap_or_default().to_string() + "\n").collect()
    };
    let mut defined: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for (file, text) in texts {
        for line in text.lines() {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            if !line.starts_with(' ') && matches!(words.next(), Some("struct" | "enum" | "trait" | "type" | "fn")) {
                let name = words.next().unwrap_or_default();
                let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                defined.entry(name.to_string()).or_default().push(file);
            }
        }
    }
    let mut imports = Imports::new();
    for (file, text) in texts {
        let folder: Vec<String> = file.split('/').map(String::from).collect();
        let above = &folder[..folder.len() - 1];
        let text = code(text);
        let mut paths = Vec::new();
        for (start, prefix) in [("crate::", &[] as &[String]), ("super::", above)] {
            for behind in text.split(start).skip(1) {
                tree(behind, prefix, &mut paths);
            }
        }
        let named = paths.iter().filter_map(|path| {
            let direct = (1..=path.len()).rev().map(|end| path[..end].join("/")).find(|name| texts.contains_key(name));
            direct.or_else(|| match defined.get(path.last()?).map(Vec::as_slice) {
                Some([only]) => Some((*only).clone()),
                _ => None,
            })
        });
        imports.insert(file.clone(), named.filter(|name| name != file).collect());
    }
    imports
}

#[test]
fn no_file_of_the_core_imports_one_that_imports_it_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/src");
    let named = sources("core/src").into_iter().map(|(path, text)| {
        (path.strip_prefix(&root).unwrap().to_str().unwrap().strip_suffix(".rs").unwrap().to_string(), text)
    });
    // The face of the crate and of a folder re-exports its files, and ties them together.
    let texts = named.filter(|(name, _)| name != "lib" && !name.ends_with("mod")).collect();
    let files = files_of_the_core(&texts);
    let arrows = files.values().map(BTreeSet::len).sum::<usize>();
    assert!(arrows > 200, "{arrows} imports were read");
    assert_eq!(circle(&files), None, "move what both files need into a third");
}

#[test]
fn a_circle_in_the_core_is_found_through_folders_groups_and_re_exports() {
    let read = |last: &str| {
        let texts = [
            ("policy/near", "use crate::state::{tables::Pool, queue};\n// use crate::model::lease::Lease;\n"),
            ("state/tables", "use super::queue::Queue;\npub struct Pool;\n"),
            ("state/queue", "use crate::Lease;\npub struct Queue;\n#[cfg(test)]\nuse crate::policy::near::X;\n"),
            ("model/lease", last),
        ];
        files_of_the_core(&texts.map(|(name, text)| (name.to_string(), text.to_string())).into())
    };
    let open = read("pub struct Lease;\n");
    assert_eq!(open["policy/near"], ["state/queue", "state/tables"].map(String::from).into());
    assert_eq!(open["state/queue"], ["model/lease"].map(String::from).into());
    assert_eq!(circle(&open), None);
    let shut = read("use crate::{\n    policy::near::nearest,\n};\npub struct Lease;\n");
    assert!(circle(&shut).is_some());
}

#[test]
fn a_circle_of_imports_is_found() {
    let read = |texts: [(&str, &str); 4]| -> Imports {
        texts.into_iter().map(|(name, text)| (name.to_string(), imports(text))).collect()
    };
    let a = "use crate::{b::{Inner, Other}, c};\n// crate::d is a comment\n";
    let b = "use crate::c::d;\nfn f() { crate::d::g() }\n#[cfg(test)]\nmod tests { use crate::a; }\n";
    let open = read([("a", a), ("b", b), ("c", ""), ("d", "")]);
    assert_eq!(open["a"], ["b", "c"].map(String::from).into());
    assert_eq!(open["b"], ["c", "d"].map(String::from).into());
    assert_eq!(circle(&open), None);
    let shut = read([("a", a), ("b", b), ("c", ""), ("d", "use crate::{\n    a,\n};")]);
    assert_eq!(circle(&shut), Some(["a", "b", "d"].map(String::from).to_vec()));
    let itself = read([("a", "use crate::a::X;"), ("b", ""), ("c", ""), ("d", "")]);
    assert_eq!(circle(&itself), Some(vec!["a".to_string()]));
}
