//! Where things are: the top level, the crates and which of them may know which.

use crate::report;
use crate::source::{find_word, module_folder, out_of_line_module, sources, top};
use std::collections::BTreeSet;
use std::fs;

const FOLDERS: [&str; 6] = ["stack", "drivers", "apps", "tools", "tests", "vm"];
const FILES: [&str; 6] = ["Cargo.toml", "Cargo.lock", "README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
const CRATES: [&str; 5] = ["stack", "drivers", "apps", "tools", "tests"];

#[test]
fn the_top_level_is_fixed() {
    let mut findings = Vec::new();
    for entry in fs::read_dir(top()).expect("the workspace can be listed") {
        let entry = entry.expect("the workspace can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = if entry.path().is_dir() { FOLDERS.contains(&&*name) } else { FILES.contains(&&*name) };
        if !known && name != "target" && !name.starts_with('.') {
            findings.push(format!("{name} does not belong to the top level"));
        }
    }
    report("only the six folders, and the files that have always been there", findings);
}

/// The keys of the dependency tables of a crate, as they stand before `.workspace`, `=` or a blank.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(top().join(krate).join("Cargo.toml")).expect("every crate has a manifest");
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if inside && !line.starts_with('#') {
            let name: String = line.chars().take_while(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect();
            if !name.is_empty() {
                names.insert(name);
            }
        }
    }
    names
}

#[test]
fn dependencies_point_one_way() {
    let mut findings = Vec::new();
    let mut forbid = |krate: &str, names: &[&str]| {
        let has = dependencies(krate);
        for name in names.iter().filter(|n| has.contains(**n)) {
            findings.push(format!("{krate}/Cargo.toml depends on {name}"));
        }
    };
    forbid("stack", &["khamsin", "khamsin-drivers", "khamsin-tools", "khamsin-tests", "libc", "rustix"]);
    forbid("drivers", &["khamsin", "khamsin-tools", "khamsin-tests", "smoltcp"]);
    forbid("apps", &["khamsin-tools", "khamsin-tests", "smoltcp"]);
    forbid("tools", &["khamsin-tests", "smoltcp"]);
    forbid("tests", &["smoltcp"]);
    let apps = fs::read_to_string(top().join("apps/Cargo.toml")).expect("every crate has a manifest");
    if apps.contains("\ndefault = ") || !apps.contains("\npcap = { workspace = true, optional = true }\n") {
        findings.push("apps/Cargo.toml needs libpcap; only its feature capture-filter may".into());
    }
    for s in sources() {
        for (number, line) in s.code.lines().enumerate().map(|(i, l)| (i + 1, l)) {
            if !s.path.starts_with("stack/") && find_word(line, "smoltcp").is_some() {
                findings.push(format!("{}:{number} names smoltcp", s.path));
            }
        }
    }
    report("stack <- drivers, stack <- apps, and only stack/ knows smoltcp", findings);
}

/// The files that the module tree of `root` reaches.
fn module_tree(root: &str) -> BTreeSet<String> {
    let all = sources();
    let mut reached = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let Some(s) = all.iter().find(|s| s.path == path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        for name in s.code.lines().filter_map(out_of_line_module) {
            let folder = module_folder(&path);
            open.push(format!("{folder}/{name}.rs"));
            open.push(format!("{folder}/{name}/mod.rs"));
        }
    }
    reached
}

#[test]
fn applications_know_no_driver() {
    let library = module_tree("apps/src/lib.rs");
    let binary = module_tree("apps/src/main/main.rs");
    let mut findings: Vec<String> = library
        .intersection(&binary)
        .map(|path| format!("{path} is compiled into the library and the binary"))
        .collect();
    for s in sources().iter().filter(|s| s.path.starts_with("apps/src/")) {
        if !library.contains(&s.path) && !binary.contains(&s.path) {
            findings.push(format!("{} belongs to no module tree", s.path));
        }
        if library.contains(&s.path) {
            findings.extend(
                s.code
                    .lines()
                    .enumerate()
                    .filter(|(_, line)| find_word(line, "khamsin_drivers").is_some())
                    .map(|(i, _)| format!("{}:{} names khamsin_drivers", s.path, i + 1)),
            );
        }
    }
    report("the library of apps/ is App and Stream alone; the binary joins it with the drivers", findings);
}

#[test]
fn every_crate_takes_the_lint_table() {
    let findings = CRATES
        .iter()
        .filter(|krate| {
            let text = fs::read_to_string(top().join(krate).join("Cargo.toml")).expect("every crate has a manifest");
            !text.contains("[lints]\nworkspace = true")
        })
        .map(|krate| format!("{krate}/Cargo.toml"))
        .collect();
    report("`[lints] workspace = true` is missing", findings);
    let root = fs::read_to_string(top().join("Cargo.toml")).expect("the workspace has a manifest");
    for lint in ["unsafe_code = \"deny\"", "undocumented_unsafe_blocks = \"deny\"", "unwrap_used = \"deny\""] {
        assert!(root.contains(lint), "Cargo.toml no longer says {lint}");
    }
    for wanted in ["default-members = [\"apps\"]", "panic = \"unwind\"", "license = \"MIT OR Apache-2.0\""] {
        assert!(root.contains(wanted), "Cargo.toml no longer says {wanted}");
    }
}
