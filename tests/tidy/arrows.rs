//! Arrows between modules: which may import which inside a package, and that no files import in a circle.
//!
//! Reads `use` lines and paths that begin with `crate` or `super`, tests left out. A child may use what its
//! parents have; every other pair of files has a bottom and a top.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::modules::MODULES;
use crate::{report, sources, text_of};

/// Folders whose files import in no circle.
const FOLDERS: &[&str] = &[
    "src",
    "shards/src",
    "shards/terms/src",
    "shards/catalog/src",
    "shards/coordinators/src",
    "shards/log/src",
    "shards/partition/src",
    "io/src",
    "protocol/src",
    "bench/src",
];

/// A module's path from the package's root: `["partition", "append"]`.
type Module = Vec<String>;

/// The modules of a folder with their files, tests left out.
fn modules(folder: &str) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    for path in sources() {
        let Ok(inside) = path.strip_prefix(folder) else {
            continue;
        };
        let mut module: Module = inside
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        let is_test = module
            .iter()
            .any(|part| part == "tests" || part.ends_with("_tests"));
        if module
            .last()
            .is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main"))
        {
            module.pop();
        }
        if !is_test {
            found.insert(module, path);
        }
    }
    assert!(found.len() > 1, "{folder} has only {} modules", found.len());
    found
}

/// The code of a file without comments and without what is there for tests only.
fn code(path: &Path) -> String {
    let text = text_of(path);
    let mut lines = text.lines().peekable();
    let mut code = String::new();
    while let Some(line) = lines.next() {
        if line.trim().starts_with("#[cfg(test)]") {
            let (mut depth, mut opened) = (0i64, false);
            for line in lines.by_ref() {
                let count = |c| i64::try_from(line.matches(c).count()).expect("a line");
                depth += count('{') - count('}');
                opened |= line.contains('{');
                let attribute = line.trim().starts_with("#[");
                if !attribute && depth <= 0 && (opened || line.trim_end().ends_with(';')) {
                    break;
                }
            }
            continue;
        }
        code.push_str(line.split("//").next().unwrap_or(""));
        code.push('\n');
    }
    code
}

/// Splits at commas that stand in no braces.
fn alternatives(tree: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&tree[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&tree[from..]);
    found
}

/// The paths of a `use` tree, behind `prefix`.
fn unfold(prefix: &[String], tree: &str, into: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if tree.is_empty() {
        return;
    }
    let (front, group) = match tree.split_once('{') {
        Some((front, rest)) => (front, rest.trim_end().strip_suffix('}')),
        None => (tree, None),
    };
    let front = front.split(" as ").next().unwrap_or("");
    let parts = front
        .split("::")
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let path: Vec<String> = prefix
        .iter()
        .cloned()
        .chain(parts.map(str::to_owned))
        .collect();
    match group {
        Some(group) => {
            for tree in alternatives(group) {
                unfold(&path, tree, into);
            }
        }
        None => into.push(path),
    }
}

/// Every path a file imports or spells out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let begins = !rest[..at].chars().next_back().is_some_and(is_word);
        let tree = &rest[at + 4..];
        let end = tree.find(';').unwrap_or(tree.len());
        if begins {
            unfold(&[], &tree[..end], &mut found);
        }
        rest = &tree[if begins { end } else { 0 }..];
    }
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at]
                .chars()
                .next_back()
                .is_some_and(|c| is_word(c) || c == ':')
            {
                continue;
            }
            let end = code[at..].find(|c: char| !is_word(c) && c != ':');
            let path = &code[at..at + end.unwrap_or(code.len() - at)];
            let parts = path.split("::").filter(|part| !part.is_empty());
            found.push(parts.map(str::to_owned).collect());
        }
    }
    found
}

/// The module that a path written in `of` leads to, if it is one of the package.
fn target(of: &Module, path: &[String], modules: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut full = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" => of.clone(),
        "super" => of.get(..of.len().checked_sub(1)?)?.to_vec(),
        child => {
            let child = [of.as_slice(), &[child.to_owned()]].concat();
            modules.get(&child)?;
            of.clone()
        }
    };
    let named = matches!(path[0].as_str(), "crate" | "self" | "super");
    for part in &path[usize::from(named)..] {
        if part == "super" {
            full.pop();
        } else {
            full.push(part.clone());
        }
    }
    while !modules.contains_key(&full) {
        full.pop()?;
    }
    Some(full)
}

/// Which module imports which.
fn imports(modules: &BTreeMap<Module, PathBuf>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut found: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, file) in modules {
        for path in paths(&code(file)) {
            if let Some(target) = target(module, &path, modules) {
                found.entry(module.clone()).or_default().insert(target);
            }
        }
    }
    found
}

#[test]
fn modules_import_only_along_the_arrows() {
    let mut failures = Vec::new();
    for (folder, table) in MODULES {
        let modules = modules(folder);
        let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let row = |name: &str| table.iter().position(|(module, _)| *module == name);
        for (at, (module, allowed)) in table.iter().enumerate() {
            let upwards = |to: &&&str| row(to).is_none_or(|below| below >= at);
            if let Some(to) = allowed.iter().find(upwards) {
                failures.push(format!(
                    "{folder}: {module} may import {to}, which is not below it"
                ));
            }
        }
        for (module, targets) in imports(&modules) {
            let (Some(room), file) = (module.first(), &modules[&module]) else {
                continue;
            };
            let Some((name, allowed)) = row(room).map(|at| table[at]) else {
                failures.push(format!(
                    "{}: give {room} its row in tests/tidy/modules.rs",
                    file.display()
                ));
                continue;
            };
            for to in targets
                .iter()
                .filter_map(|target| target.first())
                .filter(|to| *to != room)
            {
                if !allowed.contains(&to.as_str()) {
                    failures.push(format!(
                        "{}: {room} must not import {to} (see ARCHITECTURE.md)",
                        file.display()
                    ));
                }
                used.entry(name).or_default().insert(to.clone());
            }
        }
        for (module, allowed) in *table {
            let used = used.get(module);
            let idle = allowed
                .iter()
                .find(|to| used.is_none_or(|used| !used.contains(**to)));
            if let Some(to) = idle {
                failures.push(format!(
                    "{folder}: {module} does not import {to}: take it out of its row"
                ));
            }
        }
    }
    report(failures);
}

/// A circle that can be reached from `module`, if there is one.
fn circle(
    module: &Module,
    imports: &BTreeMap<Module, BTreeSet<Module>>,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if let Some(at) = way.iter().position(|passed| passed == module) {
        return Some(way[at..].to_vec());
    }
    if !done.insert(module.clone()) {
        return None;
    }
    way.push(module.clone());
    let targets = imports.get(module).into_iter().flatten();
    for target in targets.filter(|target| !module.starts_with(target)) {
        if let Some(found) = circle(target, imports, way, done) {
            return Some(found);
        }
    }
    way.pop();
    None
}

#[test]
fn no_files_import_in_a_circle() {
    let mut failures = Vec::new();
    for folder in FOLDERS {
        let modules = modules(folder);
        let imports = imports(&modules);
        let mut done = BTreeSet::new();
        for module in modules.keys() {
            if let Some(found) = circle(module, &imports, &mut Vec::new(), &mut done) {
                let names: Vec<String> = found.iter().map(|module| module.join("/")).collect();
                failures.push(format!(
                    "{folder}: a circle of imports: {}",
                    names.join(" -> ")
                ));
            }
        }
    }
    report(failures);
}
