//! No file of an adapter imports a file that imports it back, directly or by others.

use crate::arch::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The adapters without a circle.
const FOLDERS: [&str; 5] =
    ["adapters/copies/src", "adapters/ec2/src", "adapters/fake/src", "adapters/local/src", "adapters/ssh/src"];

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
