//! Rust source as the rules look at it: read once, with comments and literals blanked out, and test code marked.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One source file.
pub(crate) struct Source {
    /// Path from the top of the workspace, with `/` between its parts.
    pub(crate) path: String,
    /// The text as it stands.
    pub(crate) text: String,
    /// The text with every comment, string and character literal turned to blanks: same bytes, same lines.
    pub(crate) code: String,
    /// Per line (from 0): inside `#[cfg(test)]`, or in a file that is test code as a whole.
    pub(crate) test_lines: Vec<bool>,
}

/// The top of the workspace.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies one level below the top").to_path_buf()
}

/// Every file below the top for which `wanted` says yes; build output and dot-folders are not looked into.
pub(crate) fn files(wanted: impl Fn(&Path) -> bool) -> Vec<(String, PathBuf)> {
    let top = top();
    let mut found = Vec::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace can be listed") {
            let path = entry.expect("a folder of the workspace can be listed").path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_symlink() || name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if wanted(&path) {
                let short = path.strip_prefix(&top).expect("found below the top").to_string_lossy().into_owned();
                found.push((short, path));
            }
        }
    }
    found.sort();
    found
}

/// Every Rust file of the workspace.
pub(crate) fn sources() -> Vec<Source> {
    let found = files(|path| path.extension().is_some_and(|e| e == "rs"));
    let mut sources: Vec<Source> = found
        .into_iter()
        .map(|(path, full)| {
            let text = fs::read_to_string(full).expect("a source file is UTF-8");
            let code = blank_literals(&text);
            let whole = is_test_path(&path) || code.contains("#![cfg(test)]");
            let test_lines = mark_tests(&code, whole);
            Source { path, text, code, test_lines }
        })
        .collect();
    mark_test_modules(&mut sources);
    sources
}

fn is_test_path(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    // Examples measure and show; they are not shipped.
    let folders = ["/tests/", "/examples/"];
    path.starts_with("tests/")
        || folders.iter().any(|f| path.contains(f))
        || file == "tests.rs"
        || file.ends_with("_tests.rs")
}

/// Files named by `#[cfg(test)] mod name;` are test code too, and what lies below them.
fn mark_test_modules(sources: &mut [Source]) {
    let mut roots = Vec::new();
    for s in sources.iter() {
        let lines: Vec<&str> = s.code.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let Some(name) = out_of_line_module(line) else { continue };
            if s.test_lines[i] {
                roots.push(format!("{}/{name}", module_folder(&s.path)));
            }
        }
    }
    for s in sources.iter_mut() {
        if roots.iter().any(|r| s.path == format!("{r}.rs") || s.path.starts_with(&format!("{r}/"))) {
            s.test_lines.fill(true);
        }
    }
}

/// `name` of a line `mod name;`, with or without a visibility.
pub(crate) fn out_of_line_module(line: &str) -> Option<&str> {
    let (before, after) = line.trim().split_once("mod ")?;
    let visible = before.is_empty() || (before.starts_with("pub") && before.ends_with(' ')) || before.ends_with("] ");
    let name = after.strip_suffix(';')?.trim();
    (visible && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
}

/// The folder where the modules of the file at `path` lie.
pub(crate) fn module_folder(path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

/// Turns comments and literals to blanks; new lines stay, so that line numbers hold.
pub(crate) fn blank_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let end = match bytes[i] {
            b'/' if bytes.get(i + 1) == Some(&b'/') => line_end(bytes, i),
            b'/' if bytes.get(i + 1) == Some(&b'*') => block_comment_end(bytes, i),
            b'"' => string_end(bytes, i + 1),
            b'r' if !follows_identifier(bytes, i) => match raw_string_end(bytes, i) {
                Some(end) => end,
                None => i,
            },
            b'\'' => char_end(bytes, i),
            _ => i,
        };
        if end == i {
            i += 1;
            continue;
        }
        for b in &mut out[i..end] {
            if *b != b'\n' {
                *b = b' ';
            }
        }
        i = end;
    }
    String::from_utf8(out).expect("blanks for whole literals keep UTF-8 whole")
}

fn follows_identifier(bytes: &[u8], i: usize) -> bool {
    // `br"..."` is a raw string too: the b before it is no identifier of its own.
    let before = if i > 0 && bytes[i - 1] == b'b' { i.checked_sub(2) } else { i.checked_sub(1) };
    before.is_some_and(|b| bytes[b].is_ascii_alphanumeric() || bytes[b] == b'_')
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| from + n)
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i + 1 < bytes.len() {
        match &bytes[i..i + 2] {
            b"/*" => (depth, i) = (depth + 1, i + 2),
            b"*/" => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], mut i: usize) -> usize {
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(from + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = from + 2 + hashes;
    let end = bytes[body..].windows(close.len()).position(|w| w == close).map(|n| body + n + close.len());
    Some(end.unwrap_or(bytes.len()))
}

/// The end of a character literal; `from` itself where the quote opens a lifetime.
fn char_end(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from + 1) {
        Some(b'\\') => bytes[from + 3..].iter().position(|b| *b == b'\'').map_or(bytes.len(), |n| from + 3 + n + 1),
        Some(_) => {
            // One character of one to four bytes, then the closing quote.
            (2..=5).map(|n| from + n).find(|n| bytes.get(*n) == Some(&b'\'')).map_or(from, |end| {
                let one = std::str::from_utf8(&bytes[from + 1..end]).is_ok_and(|s| s.chars().count() == 1);
                if one { end + 1 } else { from }
            })
        }
        None => from,
    }
}

/// The byte range of the item that starts at or after `from`: up to its closing brace, or its semicolon.
pub(crate) fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (i, c) in code[from..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return from + i + 1;
                }
            }
            ';' | ',' if depth == 0 => return from + i + 1,
            _ => {}
        }
    }
    code.len()
}

fn mark_tests(code: &str, whole: bool) -> Vec<bool> {
    let mut lines = vec![whole; code.lines().count()];
    for (at, attribute) in code.match_indices("#[cfg(test)]").chain(code.match_indices("#[cfg(all(test")) {
        // The attribute's own bracket is closed before the item starts.
        let start =
            at + if attribute.ends_with(']') { attribute.len() } else { code[at..].find(")]").map_or(0, |n| n + 2) };
        for line in line_range(code, at..item_end(code, start)) {
            lines[line] = true;
        }
    }
    lines
}

fn line_range(code: &str, bytes: Range<usize>) -> Range<usize> {
    let first = code[..bytes.start].matches('\n').count();
    first..first + code[bytes].matches('\n').count() + 1
}

/// The number, from 1, of the line that byte `at` lies in.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Whether `word` stands in `line` as a word of its own, and where.
pub(crate) fn find_word(line: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).find(|at| {
        !line[..*at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

#[test]
fn literals_are_blanked() {
    let text = "let a = \"x{\\\"y\"; // {\nlet b = '{'; /* { /* } */ */ let c: &'a str = r#\"\"{\"#; 'l: loop {}";
    let code = blank_literals(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert!(code.contains("&'a str") && code.contains("'l: loop"), "{code}");
}

#[test]
fn test_modules_are_marked() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
    assert_eq!(mark_tests(code, false), [false, true, true, true, true, false]);
}
