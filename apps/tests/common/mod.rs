//! A site in memory, and answers taken apart.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test binary uses its part of it")]

use khamsin::http::{Http, HttpConfig, Loader, Request, Response, Router, Site, SiteConfig};
use khamsin::testing::{Host, Shape, converse};
use std::fs;
use std::time::Duration;

/// 1994-11-06T08:49:37Z, less the second that a host has behind it when it opens.
pub const UNIX_AT_ZERO_US: u64 = 784_111_776_000_000;
/// The date in every answer.
pub const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
/// When every file of the site was last changed, in seconds since 1970.
pub const MODIFIED: u64 = 700_000_000;

pub fn big() -> Vec<u8> {
    (0..50_000u32).map(|i| b'a' + (i % 23) as u8).collect()
}

/// A site of a few files, loaded from a folder that is gone when this returns.
pub fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("index.html", b"<p>welcome".to_vec()),
        ("small.txt", vec![b's'; 64]),
        ("big.bin", big()),
        ("empty", vec![]),
        ("sub/index.html", b"<p>sub".to_vec()),
        ("sub/a b+c.txt", b"odd".to_vec()),
        ("%41.txt", b"percent".to_vec()),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(MODIFIED)).unwrap();
    }
    let config = SiteConfig { reload: Duration::ZERO, ..SiteConfig::new(folder.path()) };
    Loader::start(config).unwrap().0
}

fn show(request: &Request<'_>) -> Response {
    let text = format!(
        "{:?} {} query={:?} host={:?} body={}",
        request.method(),
        request.path(),
        request.query(),
        request.header("HOST").map(String::from_utf8_lossy),
        String::from_utf8_lossy(request.body())
    );
    Response::text(text)
}

pub fn config() -> HttpConfig {
    HttpConfig { unix_at_zero_us: UNIX_AT_ZERO_US, body_max: 1000, ..HttpConfig::default() }
}

pub fn router() -> Router {
    Router::builtin().route("/show", show).prefix("/tree/", |r| Response::text(format!("tree {}", r.path())))
}

pub fn http(site: &Site) -> Http {
    Http::new(config(), site.clone(), router())
}

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (candidate, value) = line.split_once(": ").expect("a field");
            candidate.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Takes `output` apart as a client would that asked by `methods` in their order; the rest of them as GET.
pub fn answers(mut output: &[u8], methods: &[&str]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut asked = 0;
    while !output.is_empty() {
        let end = memchr::memmem::find(output, b"\r\n\r\n").expect("a head has an end");
        let head = String::from_utf8(output[..end].to_vec()).expect("a head is text");
        output = &output[end + 4..];
        let status: u16 = head.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        let is_head = methods.get(asked) == Some(&"HEAD");
        asked += usize::from(status != 100);
        if !(is_head || status < 200 || status == 204 || status == 304) {
            if answer.field("Transfer-Encoding") == Some("chunked") {
                loop {
                    let end = memchr::memmem::find(output, b"\r\n").expect("a chunk line has an end");
                    let size = usize::from_str_radix(std::str::from_utf8(&output[..end]).unwrap(), 16).unwrap();
                    answer.body.extend_from_slice(&output[end + 2..end + 2 + size]);
                    assert_eq!(&output[end + 2 + size..end + 4 + size], b"\r\n");
                    output = &output[end + 4 + size..];
                    if size == 0 {
                        break;
                    }
                }
            } else if let Some(length) = answer.field("Content-Length") {
                let (body, rest) = output.split_at(length.parse().expect("a number"));
                (answer.body, output) = (body.to_vec(), rest);
            } else {
                answer.body = std::mem::take(&mut output).to_vec();
            }
        }
        answers.push(answer);
    }
    answers
}

/// Sends `input` in every shape, holds the outputs against one another, and returns the host of the first.
pub fn in_all_shapes(site: &Site, input: &[u8], end: bool) -> Host<Http> {
    let mut shapes = Shape::ALL.into_iter();
    let first = converse(http(site), shapes.next().unwrap(), input, end);
    for shape in shapes {
        let other = converse(http(site), shape, input, end);
        let (a, b) = (first.wire.output(), other.wire.output());
        assert!(a == b, "{shape:?}\n{}\n-- and not --\n{}", String::from_utf8_lossy(a), String::from_utf8_lossy(b));
        assert_eq!(first.wire.is_shut(), other.wire.is_shut(), "{shape:?}");
        assert_eq!(first.wire.is_aborted(), other.wire.is_aborted(), "{shape:?}");
    }
    first
}

/// The only answer to `request`.
pub fn ask(site: &Site, request: &str) -> Answer {
    let host = in_all_shapes(site, request.as_bytes(), false);
    let method = request.split(' ').next().unwrap();
    let mut all = answers(host.wire.output(), &[method]);
    assert_eq!(all.len(), 1, "{request:?} has one answer: {all:?}");
    all.remove(0)
}

/// The only answer to a GET of `target` with more `fields`, each with its line end.
pub fn get(site: &Site, target: &str, fields: &str) -> Answer {
    ask(site, &format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}
