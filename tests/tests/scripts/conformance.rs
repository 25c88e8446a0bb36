//! Holds `tests/scripts/CONFORMANCE.md` to the truth: what it names exists, and it names every script; and the table of
//! differences from Linux to the scripts.

use crate::{folder, name, table};
use khamsin_tools::script::Script;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const PAGE: &str = "CONFORMANCE.md";
const LINUX: &str = "LINUX.md";

/// What the page names and is not there, and the scripts that it does not name.
pub(crate) fn check_page(scripts: &[Arc<Script>]) -> Result<(), String> {
    let page = read(&folder().join(PAGE))?;
    let mut findings = Vec::new();
    for (number, line) in page.lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        // The last column; `\|` is no border.
        let cells: Vec<&str> = line.trim_end_matches([' ', '|']).split(" | ").collect();
        let named = cells.last().map_or("", |cell| *cell).split('`').skip(1).step_by(2);
        let missing = named.filter(|what| !exists(what, scripts)).map(|what| format!("{PAGE}:{} {what}", number + 1));
        findings.extend(missing);
    }
    let unnamed = scripts.iter().filter(|script| !page.contains(&format!("`{}.pkt`", name(script))));
    findings.extend(unnamed.map(|script| format!("{PAGE} does not name {}", script.file)));
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

/// Whether there is such a script, such a file, or such a test in a file.
fn exists(what: &str, scripts: &[Arc<Script>]) -> bool {
    if let Some(script) = what.strip_suffix(".pkt") {
        return scripts.iter().any(|s| name(s) == script);
    }
    let (file, test) = what.split_once("::").map_or((what, None), |(file, test)| (file, Some(test)));
    let Ok(text) = read(&folder().join("../..").join(file)) else { return false };
    test.is_none_or(|test| text.contains(&format!("fn {test}(")))
}

/// The table of differences is the one that the scripts give.
pub(crate) fn check_linux(scripts: &[Arc<Script>]) -> Result<(), String> {
    let written = read(&folder().join(LINUX))?;
    if written.ends_with(&format!("{}\n", table(scripts))) {
        return Ok(());
    }
    Err(format!(
        "{LINUX} is not what the scripts say: put what `cargo test -p khamsin-tests --test scripts -- --table` prints under its heading"
    ))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}
