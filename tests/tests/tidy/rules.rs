//! What the code itself may and may not say.

use crate::report;
use crate::source::{Source, files, find_word, item_end, line_of, sources};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Files that open `unsafe_code`, beside everything in them. The list is short and every line of it is a decision.
const UNSAFE_FILES: &[&str] = &[
    // The one intrinsic of the stack: a prefetch has no safe form.
    "stack/src/prefetch.rs",
    // Memory shared with the kernel, and the system calls that rustix does not have.
    "drivers/src/af_packet/ring.rs",
    "drivers/src/af_packet/ring/tests.rs",
    "drivers/src/af_packet/socket.rs",
    "drivers/src/af_xdp/admission.rs",
    "drivers/src/af_xdp/bpf.rs",
    "drivers/src/af_xdp/ring.rs",
    "drivers/src/af_xdp/socket.rs",
    "drivers/src/af_xdp/umem.rs",
    "drivers/src/link/ethtool.rs",
    "drivers/src/pages.rs",
    "drivers/src/tap/device.rs",
];

/// Files above 500 lines, with the reason why they are one idea.
const LONG_FILES: &[(&str, &str)] = &[];

/// Functions above 70 lines, as `file:name`, with the reason why they are not two.
const LONG_FUNCTIONS: &[(&str, &str)] = &[("apps/tests/http_hostile.rs:table", "a table of requests: data, no steps")];

/// Files with tests that run only by name, with the reason.
const IGNORED: &[(&str, &str)] = &[
    ("drivers/tests/af_packet.rs", "the inner half of another test, which starts it in a user namespace"),
    ("drivers/tests/af_packet_shard.rs", "a measurement, which takes a machine to itself"),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

fn findings_in(product_only: bool, check: impl Fn(&Source, &str) -> Option<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for s in sources() {
        for (i, line) in s.code.lines().enumerate() {
            if product_only && s.test_lines[i] {
                continue;
            }
            if let Some(what) = check(&s, line) {
                findings.push(format!("{}:{} {what}", s.path, i + 1));
            }
        }
    }
    findings
}

#[test]
fn unsafe_stays_in_named_files() {
    let findings = findings_in(false, |s, line| {
        let says = find_word(line, "unsafe").is_some() || find_word(line, "unsafe_code").is_some();
        let opens = says && !line.contains("forbid(unsafe_code)");
        (opens && !UNSAFE_FILES.contains(&&*s.path)).then(|| line.trim().to_owned())
    });
    report("unsafe outside the files that tests/tests/tidy/rules.rs names", findings);
    let all = sources();
    for file in UNSAFE_FILES {
        let source = all.iter().find(|s| s.path == *file);
        assert!(source.is_none_or(|s| s.code.contains("unsafe")), "{file} needs no place on the list any more");
    }
}

#[test]
fn unsafe_blocks_argue() {
    let mut findings = Vec::new();
    for s in sources() {
        let code: Vec<&str> = s.code.lines().collect();
        let text: Vec<&str> = s.text.lines().collect();
        for (i, line) in code.iter().enumerate() {
            let opens = find_word(line, "unsafe").is_some_and(|at| {
                let rest = line[at + 6..].trim_start();
                rest.starts_with('{') || rest.starts_with("impl") || rest.is_empty()
            });
            if opens && !argued(&code, &text, i) {
                findings.push(format!("{}:{}", s.path, i + 1));
            }
        }
    }
    report("an unsafe block or impl without a SAFETY argument right above", findings);
}

/// Whether the comment that ends at most two lines of the same statement above `line` has a SAFETY argument.
fn argued(code: &[&str], text: &[&str], line: usize) -> bool {
    let mut above = line;
    let mut statement_lines = 0;
    while above > 0 {
        above -= 1;
        let comment = text[above].trim_start().starts_with("//");
        if comment && text[above].contains("SAFETY:") {
            return true;
        }
        if !comment && !code[above].trim_start().starts_with("#[") {
            statement_lines += 1;
            // A block behind `let x =` or inside a call has its argument above the statement.
            if statement_lines > 2 || code[above].trim_end().ends_with([';', '}']) {
                return false;
            }
        }
    }
    false
}

#[test]
fn no_stubs_and_no_leftovers() {
    let mut findings = findings_in(false, |s, line| {
        let macros = ["todo!", "unimplemented!", "dbg!"];
        let found = macros.iter().find(|m| line.contains(**m)).copied();
        let ignored = line.contains("#[ignore") && !IGNORED.iter().any(|(file, _)| *file == s.path);
        found.or(ignored.then_some("#[ignore]")).map(str::to_owned)
    });
    let marks = [concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK:")];
    for s in sources() {
        for (i, line) in s.text.lines().enumerate() {
            findings.extend(marks.iter().filter(|m| line.contains(**m)).map(|m| format!("{}:{} {m}", s.path, i + 1)));
        }
    }
    report("stubs and leftovers", findings);
}

#[test]
fn nothing_unwraps_outside_tests() {
    let findings = findings_in(true, |_, line| line.contains(".unwrap()").then(|| line.trim().to_owned()));
    report("unwrap() outside tests", findings);
}

/// They panic where a disk is full or a reader has gone.
#[test]
fn nothing_prints_by_macro() {
    let findings = findings_in(true, |_, line| {
        let macros = ["print", "println", "eprint", "eprintln"];
        let printed =
            macros.iter().find(|m| find_word(line, m).is_some_and(|at| line[at + m.len()..].starts_with('!')));
        printed.map(|m| format!("{m}!"))
    });
    report("printed by a macro: khamsin::output says it without a panic", findings);
}

#[test]
fn files_are_short() {
    let findings = sources()
        .iter()
        .map(|s| (s, s.text.lines().count()))
        .filter(|(s, lines)| *lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(file, _)| *file == s.path))
        .map(|(s, lines)| format!("{}: {lines} lines", s.path))
        .collect();
    report("files above 500 lines: split them by idea, or name the reason", findings);
}

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    for s in sources() {
        for (name, line, lines) in functions(&s.code) {
            let place = format!("{}:{name}", s.path);
            if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.iter().any(|(known, _)| *known == place) {
                findings.push(format!("{}:{line} fn {name}: {lines} lines", s.path));
            }
        }
    }
    report("functions above 70 lines", findings);
}

/// Name, first line and length of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = find_word(&code[from..], "fn").map(|n| from + n) {
        from = at + 2;
        let name: String = code[from..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = item_end(code, from);
        // A function pointer type has no name, a trait method without a body ends in a semicolon.
        if !name.is_empty() && code[..end].ends_with('}') {
            let first = line_of(code, at);
            found.push((name, first, line_of(code, end - 1) - first + 1));
        }
    }
    found
}

#[test]
fn only_the_clock_reads_clocks() {
    let clocks = ["Instant::now", "SystemTime::now", "clock_gettime", "Utc::now"];
    let guarded = ["stack/", "drivers/", "apps/src/"];
    let findings = findings_in(true, |s, line| {
        let inside = guarded.iter().any(|g| s.path.starts_with(g)) && s.path != "drivers/src/clock.rs";
        clocks.iter().find(|c| inside && line.contains(**c)).map(|c| (*c).to_owned())
    });
    report("time is an argument: only drivers/src/clock.rs reads a clock", findings);
}

#[test]
fn every_counter_is_tested() {
    let all = sources();
    let counters = all.iter().find(|s| s.path == "stack/src/counters.rs").expect("the stack has counters");
    let list = counters.code.split_once("\ncounters! {").expect("the list of counters").1;
    let list = list.split_once('}').expect("the list of counters ends").0;
    let test_text: String = all
        .iter()
        .flat_map(|s| s.text.lines().zip(&s.test_lines).filter(|(_, test)| **test).map(|(line, _)| line))
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |text, line| text + line + "\n");
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    assert!(names.len() > 20, "the list of counters is read wrongly: {names:?}");
    let findings =
        names.iter().filter(|name| find_word(&test_text, name).is_none()).map(|name| (*name).to_owned()).collect();
    report("counters that no test makes move", findings);
}

#[test]
fn no_address_of_others() {
    let mut findings = Vec::new();
    let scripts = |path: &std::path::Path| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        path.extension().is_some_and(|e| ["rs", "py", "sh", "toml", "c"].contains(&&*e.to_string_lossy()))
            || name == "run"
    };
    for (path, full) in files(scripts) {
        let text = fs::read_to_string(full).expect("a source file is UTF-8");
        // Comments name sections of RFCs, which look like addresses.
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            findings.extend(foreign_addresses(line).into_iter().map(|a| format!("{path}:{} {a}", i + 1)));
        }
    }
    report("addresses outside 198.18.0.0/15, fd00::/8, loopback, multicast and documentation", findings);
}

fn foreign_addresses(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Ipv4Addr::new(a, b, c, d) with numbers reads as an address too.
    let spelled = match line.split_once("Ipv4Addr::new(") {
        Some((_, arguments)) => arguments.replace(", ", "."),
        None => String::new(),
    };
    for token in [line, &spelled].into_iter().flat_map(|l| l.split(|c: char| !(c.is_ascii_digit() || c == '.'))) {
        if let Ok(address) = token.parse::<Ipv4Addr>()
            && !may_stand_v4(address)
        {
            found.push(address.to_string());
        }
    }
    for token in line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '.')) {
        // Two colons alone are an operator, and a path such as `std::fs` is no address.
        if token.len() > 2
            && let Ok(address) = token.parse::<Ipv6Addr>()
            && !may_stand_v6(address)
        {
            found.push(address.to_string());
        }
    }
    found
}

fn may_stand_v4(a: Ipv4Addr) -> bool {
    let benchmark = a.octets()[0] == 198 && (a.octets()[1] == 18 || a.octets()[1] == 19);
    benchmark
        || a.is_loopback()
        || a.is_unspecified()
        || a.is_broadcast()
        || a.is_multicast()
        || a.is_documentation()
        || a.octets()[0] == 255
        || a.is_link_local()
        // 0.0.0.0/8 and 240.0.0.0/4: nobody's, good for tests of martians.
        || a.octets()[0] == 0
        || a.octets()[0] >= 240
}

fn may_stand_v6(a: Ipv6Addr) -> bool {
    let s = a.segments();
    a.is_loopback()
        || a.is_unspecified()
        || a.is_multicast()
        || a.is_unicast_link_local()
        || s[0] & 0xff00 == 0xfd00
        || s[0] == 0x2001 && s[1] == 0xdb8
        || a.to_ipv4().is_some_and(|v4| may_stand_v4(v4) || v4.octets()[0] == 0)
}

#[test]
fn the_address_rule_bites() {
    assert!(foreign_addresses("connect(\"198.18.0.1\", \"[fd00::1]:80\", 127.0.0.1, 192.0.2.7)").is_empty());
    let foreign_v4 = ["10", "1", "2", "3"].join(".");
    assert_eq!(foreign_addresses(&format!("curl http://{foreign_v4}/")), std::slice::from_ref(&foreign_v4));
    let foreign_v6 = ["2a00", "1450", ":1"].join(":");
    assert_eq!(foreign_addresses(&format!("ping {foreign_v6}")), std::slice::from_ref(&foreign_v6));
}

#[test]
fn functions_are_measured() {
    let code = "fn a() {\n    b({\n    });\n}\ntrait T { fn c(); }\nconst F: fn(u8) = d;\n";
    assert_eq!(functions(code), [("a".to_owned(), 1, 4)]);
}
