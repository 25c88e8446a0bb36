//! Files: what a client of RFC 9110 sees, however its bytes are cut.

mod common;

use common::{DATE, MODIFIED, answers, ask, big, get, http, in_all_shapes, site};
use khamsin::testing::{Host, Shape, converse};

#[test]
fn a_file_and_its_fields() {
    let site = site();
    let answer = get(&site, "/small.txt", "");
    assert_eq!((answer.status, &answer.body[..]), (200, &[b's'; 64][..]));
    for (name, value) in [
        ("Server", "khamsin"),
        ("Date", DATE),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", "64"),
        ("Last-Modified", "Sat, 07 Mar 1992 20:26:40 GMT"),
        ("Accept-Ranges", "bytes"),
    ] {
        assert_eq!(answer.field(name), Some(value), "{name}");
    }
    assert!(answer.field("ETag").unwrap().starts_with('"'));
    assert_eq!(answer.field("Connection"), None);
    assert_eq!(get(&site, "/big.bin", "").body, big());
    assert_eq!(get(&site, "/empty", "").field("Content-Length"), Some("0"));
}

#[test]
fn paths() {
    let site = site();
    let table: [(&str, u16, &str); 22] = [
        ("/", 200, "<p>welcome"),
        ("/?query", 200, "<p>welcome"),
        ("http://anyone/", 200, "<p>welcome"),
        ("HTTPS://anyone", 200, "<p>welcome"),
        ("/index.html", 200, "<p>welcome"),
        ("/sub/", 200, "<p>sub"),
        ("/sub/a%20b+c.txt", 200, "odd"),
        ("/sub%2Fa%20b%2bc.txt", 200, "odd"),
        ("/%2541.txt", 200, "percent"),
        ("/%41.txt", 404, ""),
        ("/sub", 301, ""),
        ("/none", 404, ""),
        ("/sub/none", 404, ""),
        ("//", 404, ""),
        ("/./", 404, ""),
        ("/sub/..", 400, ""),
        ("/../../../../etc/passwd", 400, ""),
        ("/%2e%2e/etc/passwd", 400, ""),
        ("/..%2fetc/passwd", 400, ""),
        ("/..\\..\\etc\\passwd", 404, ""),
        ("/small.txt%00", 400, ""),
        ("/%zz", 400, ""),
    ];
    for (target, status, body) in table {
        let answer = get(&site, target, "");
        assert_eq!(answer.status, status, "{target}");
        if status == 200 {
            assert_eq!(String::from_utf8(answer.body).unwrap(), body, "{target}");
        }
    }
    assert_eq!(get(&site, "/sub?a=b", "").field("Location"), Some("/sub/?a=b"));
}

#[test]
fn head_is_get_without_the_body() {
    let site = site();
    for target in ["/small.txt", "/big.bin", "/sub", "/none", "/query?a=1", "/%zz"] {
        let head = ask(&site, &format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let get = get(&site, target, "");
        assert_eq!(head.head, get.head, "{target}");
        assert!(head.body.is_empty());
    }
    let ranged = ask(&site, "HEAD /small.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n");
    assert_eq!(ranged.status, 200, "Range is for GET");
}

#[test]
fn methods() {
    let site = site();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let answer = ask(&site, &format!("{method} /small.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"));
        assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
        assert_eq!(answer.field("Connection"), None, "{method}");
    }
    let options = ask(&site, "OPTIONS /small.txt HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((options.status, options.field("Allow")), (204, Some("GET, HEAD, OPTIONS")));
    let options = ask(&site, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((options.status, options.field("Content-Length")), (200, Some("0")));
    assert_eq!(ask(&site, "GET * HTTP/1.1\r\nHost: h\r\n\r\n").status, 400);
    assert_eq!(ask(&site, "BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n").status, 501);
    assert_eq!(ask(&site, "get / HTTP/1.1\r\nHost: h\r\n\r\n").status, 501);
    assert_eq!(ask(&site, "CONNECT host:80 HTTP/1.1\r\nHost: h\r\n\r\n").status, 501);
}

#[test]
fn ranges() {
    let site = site();
    let all = big();
    for (target, len) in [("/big.bin", 50_000), ("/small.txt", 64)] {
        let bytes = get(&site, target, "").body;
        let table = [
            ("bytes=0-0", 206, 0..1),
            ("bytes=10-19", 206, 10..20),
            ("bytes=60-", 206, 60..len),
            ("bytes=-3", 206, len - 3..len),
            ("bytes=-999999", 206, 0..len),
            ("bytes=50-999999", 206, 50..len),
            ("bytes=0-1,5-6", 200, 0..len),
            ("bytes=9-3", 200, 0..len),
            ("rows=0-1", 200, 0..len),
        ];
        for (range, status, want) in table {
            let answer = get(&site, target, &format!("Range: {range}\r\n"));
            assert_eq!((answer.status, &answer.body[..]), (status, &bytes[want.clone()]), "{range} of {target}");
            let content_range = format!("bytes {}-{}/{len}", want.start, want.end - 1);
            assert_eq!(answer.field("Content-Range"), (status == 206).then_some(content_range.as_str()), "{range}");
            assert!(answer.field("ETag").is_some());
        }
        for range in ["bytes=999999-", "bytes=-0"] {
            let answer = get(&site, target, &format!("Range: {range}\r\n"));
            let content_range = format!("bytes */{len}");
            assert_eq!((answer.status, answer.field("Content-Range")), (416, Some(content_range.as_str())), "{range}");
        }
    }
    assert_eq!(get(&site, "/empty", "Range: bytes=0-\r\n").status, 416);
    let two = get(&site, "/big.bin", "Range: bytes=0-1\r\nRange: bytes=2-3\r\n");
    assert_eq!((two.status, two.body), (200, all));
}

#[test]
fn conditions() {
    let site = site();
    let tag = get(&site, "/small.txt", "").field("ETag").unwrap().to_string();
    let at = |offset: i64| {
        let seconds = MODIFIED.checked_add_signed(offset).unwrap();
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
    };
    let (before, same, after) = (at(-1), at(0), at(1));
    let table = [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: W/{tag}"), 304),
        (format!("If-None-Match: \"x\", {tag}"), 304),
        ("If-None-Match: *".into(), 304),
        ("If-None-Match: \"x\"".into(), 200),
        (format!("If-Modified-Since: {same}"), 304),
        (format!("If-Modified-Since: {after}"), 304),
        (format!("If-Modified-Since: {before}"), 200),
        ("If-Modified-Since: whenever".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {same}"), 200),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: *".into(), 200),
        (format!("If-Match: W/{tag}"), 412),
        ("If-Match: \"x\"".into(), 412),
        (format!("If-Unmodified-Since: {same}"), 200),
        (format!("If-Unmodified-Since: {before}"), 412),
        (format!("If-Match: {tag}\r\nIf-Unmodified-Since: {before}"), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: W/{tag}"), 200),
        ("Range: bytes=0-1\r\nIf-Range: \"x\"".into(), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {same}"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: {after}"), 200),
        (format!("Range: bytes=0-1\r\nIf-None-Match: {tag}"), 304),
    ];
    for (fields, status) in table {
        let answer = get(&site, "/small.txt", &format!("{fields}\r\n"));
        assert_eq!(answer.status, status, "{fields}");
        if status == 304 {
            assert_eq!((answer.field("ETag"), answer.field("Content-Length")), (Some(tag.as_str()), None));
        }
        let request = format!("HEAD /small.txt HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
        let status = if status == 206 { 200 } else { status };
        assert_eq!(ask(&site, &request).status, status, "HEAD {fields}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = site();
    let mut input = String::new();
    let mut want = Vec::new();
    for i in 0..200 {
        let target = ["/small.txt", "/big.bin", "/none", "/", "/query?a=1", "/empty"][i % 6];
        input += &format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        want.push(get(&site, target, ""));
    }
    let host = in_all_shapes(&site, input.as_bytes(), true);
    assert_eq!(answers(host.wire.output(), &[]), want);
    assert!(host.wire.is_shut(), "the peer ended its stream");
}

#[test]
fn a_repeated_request_is_answered_the_same_from_memory() {
    let site = site();
    let request = b"GET /small.txt HTTP/1.1\r\nHost: h\r\n\r\n";
    assert!(request.len() >= 32, "shorter heads are not remembered");
    let mut host = converse(http(&site), Shape::WHOLE, &request.repeat(3), false);
    let first = host.wire.output().len() / 3;
    assert!(host.wire.output().chunks(first).all(|answer| answer == &host.wire.output()[..first]));
    assert_eq!((host.app.stats().requests, host.app.stats().repeated), (3, 2));
    host.deliver(b"GET /small.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(host.wire.is_shut());
    assert_eq!(host.app.stats().repeated, 2);

    // A new snapshot and a new second show at once.
    let mut host = converse(http(&site), Shape::WHOLE, request, false);
    site.replace(khamsin::http::Snapshot::default());
    host.advance_ms(1000);
    host.wire.clear_output();
    host.deliver(request);
    let answer = &answers(host.wire.output(), &[])[0];
    assert_eq!((answer.status, answer.field("Date")), (404, Some("Sun, 06 Nov 1994 08:49:38 GMT")));
}

#[test]
fn connections_stay_or_end() {
    let site = site();
    let table = [
        ("HTTP/1.1", "", false, None),
        ("HTTP/1.1", "Connection: close\r\n", true, Some("close")),
        ("HTTP/1.1", "Connection: Keep-Alive\r\n", false, None),
        ("HTTP/1.1", "Connection: foo, CLOSE\r\n", true, Some("close")),
        ("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", true, Some("close")),
        ("HTTP/1.0", "", true, Some("close")),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", false, Some("keep-alive")),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", true, Some("close")),
    ];
    for target in ["/small.txt", "/big.bin", "/none"] {
        for (version, fields, shut, connection) in table {
            let request = format!("GET {target} {version}\r\nHost: h\r\n{fields}\r\n").repeat(2);
            let host = in_all_shapes(&site, request.as_bytes(), false);
            let answers = answers(host.wire.output(), &[]);
            assert_eq!(answers.len(), if shut { 1 } else { 2 }, "{version} {fields}");
            assert!(answers.iter().all(|answer| answer.field("Connection") == connection), "{version} {fields}");
            assert_eq!(host.wire.is_shut(), shut, "{version} {fields}");
            assert_eq!(host.wire.unread(), 0);
        }
    }
    let host = in_all_shapes(&site, b"GET / HTTP/1.0\r\n\r\n", false);
    assert_eq!(answers(host.wire.output(), &[])[0].status, 200, "HTTP/1.0 needs no Host");
}

#[test]
fn blank_lines_and_bare_line_feeds_between_requests() {
    let site = site();
    let host =
        in_all_shapes(&site, b"\r\n\r\nGET / HTTP/1.1\nHost: h\n\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n\r\n", true);
    let answers = answers(host.wire.output(), &[]);
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200]);
}

#[test]
fn without_a_root_there_is_a_page_that_says_what_this_is() {
    let answer = get(&khamsin::http::Site::welcome(), "/", "");
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("khamsin"));
    assert_eq!(answer.field("Last-Modified"), None);
    assert_eq!(answer.field("Content-Type"), Some("text/html; charset=utf-8"));
}

#[test]
fn a_slow_reader_holds_back_the_requests_behind() {
    let site = site();
    let request = b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut host = Host::open(http(&site), Shape { references: 2, ..Shape::WHOLE });
    host.reader = false;
    host.deliver(&request.repeat(5));
    assert_eq!(answers_whole(&host), 2);
    assert!(host.wire.unread() > 0, "requests that cannot be answered stay where they are");
    host.acknowledge();
    host.acknowledge();
    assert_eq!(answers_whole(&host), 5);
}

fn answers_whole(host: &Host<khamsin::http::Http>) -> usize {
    memchr::memmem::find_iter(host.wire.output(), &big()).count()
}
