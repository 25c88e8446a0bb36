//! HTTP with curl, and byte for byte over a bare socket.

use crate::{CLIENT_LIMIT, Case, Scene, everywhere};
use anyhow::{Context, Result, bail, ensure};
use khamsin_tests::command::{Ran, run};
use khamsin_tests::deadline::wait_for;
use khamsin_tests::pages::pattern;
use std::fs;
use std::time::Duration;

const CURL: &[&str] = &["curl"];
const PYTHON: &[&str] = &["python3"];

pub(crate) const CASES: &[Case] = &[
    Case::new("get", CURL, everywhere, get),
    Case::new("get_over_ipv6", CURL, everywhere, get_over_ipv6),
    Case::new("get_http_1_0", CURL, everywhere, get_http_1_0),
    Case::new("head", CURL, everywhere, head),
    Case::new("range", CURL, everywhere, range),
    Case::new("not_modified", CURL, everywhere, not_modified),
    Case::new("keep_alive", CURL, everywhere, keep_alive),
    Case::new("big_file", CURL, everywhere, big_file),
    Case::new("big_file_over_ipv6", CURL, everywhere, big_file_over_ipv6),
    Case::new("post_echo_10_mb", CURL, everywhere, post_echo),
    Case::new("post_echo_chunked", CURL, everywhere, post_echo_chunked),
    Case::new("query", CURL, everywhere, query),
    Case::new("reload", CURL, everywhere, reload),
    Case::new("pipeline", PYTHON, everywhere, |s| python(s, "pipeline")),
    Case::new("a_byte_at_a_time", PYTHON, everywhere, |s| python(s, "bytewise")),
    Case::new("errors", PYTHON, everywhere, |s| python(s, "errors")),
    Case::new("events", PYTHON, everywhere, |s| python(s, "events")),
];

fn python(scene: &mut Scene, case: &str) -> Result<()> {
    scene.python("http.py", case, 80, &[]).map(drop)
}

/// curl, quiet but for errors; an HTTP error is an error.
pub(crate) fn curl(scene: &Scene, arguments: &[&str]) -> Result<Ran> {
    let mut all = vec!["-sS", "--fail", "--max-time", "40"];
    all.extend(arguments);
    scene.client("curl", &all)
}

/// curl's standard output must be these bytes.
fn want(ran: &Ran, bytes: &[u8]) -> Result<()> {
    if ran.stdout != bytes {
        let at = ran.stdout.iter().zip(bytes).position(|(a, b)| a != b);
        bail!("`{}`: {} bytes instead of {}, first difference {at:?}", ran.line, ran.stdout.len(), bytes.len());
    }
    Ok(())
}

/// The value of a header in what `curl -i` or `curl -I` printed.
fn header<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    text.lines()
        .filter_map(|l| l.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
        .with_context(|| format!("no header {name} in:\n{text}"))
}

fn get(scene: &mut Scene) -> Result<()> {
    for name in ["small", "page", "sub/a.txt", "empty", "index.html"] {
        want(&curl(scene, &[&scene.url(&format!("/{name}"))])?, &scene.pages.bytes(name)?)?;
    }
    let index = curl(scene, &["-i", &scene.url("/")])?.text();
    ensure!(index.starts_with("HTTP/1.1 200 "), "{index}");
    ensure!(index.ends_with(&String::from_utf8(scene.pages.bytes("index.html")?)?), "{index}");
    ensure!(header(&index, "content-type")?.starts_with("text/html"), "{index}");
    ensure!(header(&index, "date")?.ends_with(" GMT") && header(&index, "last-modified")?.ends_with(" GMT"), "{index}");
    let url = &scene.server.ready.url;
    ensure!(url.starts_with("http://"), "the ready line names {url}");
    curl(scene, &["-o", "/dev/null", url]).context("the URL of the ready line")?;
    Ok(())
}

fn get_over_ipv6(scene: &mut Scene) -> Result<()> {
    let url = format!("http://[{}]/page", scene.rung.v6());
    want(&curl(scene, &["-g", &url])?, &scene.pages.bytes("page")?)
}

fn get_http_1_0(scene: &mut Scene) -> Result<()> {
    want(&curl(scene, &["--http1.0", &scene.url("/page")])?, &scene.pages.bytes("page")?)
}

fn head(scene: &mut Scene) -> Result<()> {
    let said = curl(scene, &["-I", &scene.url("/page"), &scene.url("/small")])?.text();
    let lengths: Vec<&str> = said.lines().filter(|l| l.to_ascii_lowercase().starts_with("content-length")).collect();
    ensure!(lengths.len() == 2 && lengths[0].ends_with(" 8046") && lengths[1].ends_with(" 64"), "{said}");
    Ok(())
}

fn range(scene: &mut Scene) -> Result<()> {
    let page = scene.pages.bytes("page")?;
    want(&curl(scene, &["-r", "100-299", &scene.url("/page")])?, &page[100..300])?;
    want(&curl(scene, &["-r", "8000-", &scene.url("/page")])?, &page[8000..])?;
    want(&curl(scene, &["-r", "-46", &scene.url("/page")])?, &page[8000..])?;
    let said = curl(scene, &["-r", "5000000-5000009", "-D", "/dev/stderr", &scene.url("/big")])?;
    want(&said, &scene.pages.bytes("big")?[5_000_000..5_000_010])?;
    ensure!(said.stderr.starts_with("HTTP/1.1 206 "), "{}", said.stderr);
    let content_range = header(&said.stderr, "content-range")?;
    ensure!(content_range == "bytes 5000000-5000009/10000019", "{content_range}");
    Ok(())
}

fn not_modified(scene: &mut Scene) -> Result<()> {
    let first = curl(scene, &["-I", &scene.url("/page")])?.text();
    let (tag, time) = (header(&first, "etag")?, header(&first, "last-modified")?);
    for condition in [format!("If-None-Match: {tag}"), format!("If-Modified-Since: {time}")] {
        let code = curl(scene, &["-o", "/dev/null", "-w", "%{http_code}", "-H", &condition, &scene.url("/page")])?;
        ensure!(code.text() == "304", "{condition}: {}", code.text());
    }
    let other = curl(scene, &["-H", "If-None-Match: \"something-else\"", &scene.url("/page")])?;
    want(&other, &scene.pages.bytes("page")?)
}

fn keep_alive(scene: &mut Scene) -> Result<()> {
    let mut arguments = vec!["-w".to_owned(), "%{stderr}%{num_connects} ".to_owned()];
    let mut bytes = Vec::new();
    for i in 0..20 {
        let name = ["small", "page"][i % 2];
        arguments.push(scene.url(&format!("/{name}")));
        bytes.extend(scene.pages.bytes(name)?);
    }
    let said = curl(scene, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    want(&said, &bytes)?;
    let connects: u32 = said.stderr.split_whitespace().filter_map(|n| n.parse::<u32>().ok()).sum();
    ensure!(connects == 1, "20 requests over {connects} connections");
    Ok(())
}

fn big_file(scene: &mut Scene) -> Result<()> {
    want(&curl(scene, &[&scene.url("/big")])?, &scene.pages.bytes("big")?)
}

fn big_file_over_ipv6(scene: &mut Scene) -> Result<()> {
    let url = format!("http://[{}]/big", scene.rung.v6());
    want(&curl(scene, &["-g", &url])?, &scene.pages.bytes("big")?)
}

fn post_echo(scene: &mut Scene) -> Result<()> {
    post(scene, 10_000_000, &[])
}

fn post_echo_chunked(scene: &mut Scene) -> Result<()> {
    post(scene, 1_000_003, &["-H", "Transfer-Encoding: chunked"])?;
    post(scene, 0, &["-H", "Transfer-Encoding: chunked"])
}

fn post(scene: &Scene, len: usize, more: &[&str]) -> Result<()> {
    let body = pattern(len, 7);
    let file = scene.pages.file("body");
    fs::write(&file, &body)?;
    let (data, url) = (format!("@{}", file.display()), scene.url("/echo"));
    let mut arguments = vec!["-H", "Content-Type: application/octet-stream", "--data-binary", &data];
    arguments.extend(more);
    arguments.push(&url);
    want(&curl(scene, &arguments)?, &body)
}

fn query(scene: &mut Scene) -> Result<()> {
    let said = curl(scene, &[&scene.url("/query?wind=kham%20sin&sand=1&empty=&wind=again")])?.text();
    let json: serde_json::Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let flat = json.to_string();
    ensure!(["\"kham sin\"", "\"1\"", "\"sand\"", "\"empty\""].iter().all(|w| flat.contains(w)), "{said}");
    Ok(())
}

/// A file that changes is served anew within the interval of --reload (5 seconds unless told otherwise).
fn reload(scene: &mut Scene) -> Result<()> {
    let new = pattern(5000, 9);
    // Put into place as a whole: a file that is read while it is written would be no fault of the server's.
    fs::write(scene.pages.file("page.new"), &new)?;
    fs::rename(scene.pages.file("page.new"), scene.pages.file("page"))?;
    wait_for("the changed file", Duration::from_secs(15), || {
        let mut command = scene.bed.client().command("curl");
        command.args(["-sS", "--max-time", "10", &scene.url("/page")]);
        let ran = run(command, CLIENT_LIMIT)?.ok()?;
        std::thread::sleep(Duration::from_millis(200));
        Ok((ran.stdout == new).then_some(()))
    })?;
    let log = scene.server.log();
    ensure!(log.contains("reloading page (5000 bytes)"), "the log does not say so: {log}");
    Ok(())
}
