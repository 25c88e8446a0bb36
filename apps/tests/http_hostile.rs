//! Requests that are wrong, on purpose or not: the right status, the end of the connection where framing is in
//! doubt, and never a panic.

mod common;

use common::{answers, http, in_all_shapes, site};
use khamsin::testing::{Shape, converse};
use proptest::prelude::*;
use std::sync::LazyLock;

static SITE: LazyLock<khamsin::http::Site> = LazyLock::new(site);

/// Request, status, whether the connection ends.
fn table() -> Vec<(String, u16, bool)> {
    let host = "Host: h\r\n";
    let mut table = vec![];
    let mut case = |request: String, status: u16, ends: bool| table.push((request, status, ends));
    // Request lines.
    for line in [
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 x",
        "GET / http/1.1",
        "GET / HTTP/x.y",
        "GET / FTP/1.1",
        "GET\t/\tHTTP/1.1",
        "G@T / HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "\u{16}\u{3}\u{1}",
    ] {
        case(format!("{line}\r\n{host}\r\n"), 400, true);
    }
    for version in ["HTTP/2.0", "HTTP/2", "HTTP/3", "HTTP/0.9", "HTTP/1.2"] {
        case(format!("GET / {version}\r\n{host}\r\n"), 505, true);
    }
    case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, true);
    case(format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9000)), 414, true);
    case(format!("GET /{}", "a".repeat(9000)), 414, true);
    case(format!("GET /a#b HTTP/1.1\r\n{host}\r\n"), 400, false);
    case(format!("GET a HTTP/1.1\r\n{host}\r\n"), 400, false);
    // Fields.
    for fields in [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a,b\r\n",
        "Host: h\r\nNo colon\r\n",
        "Host: h\r\nName : x\r\n",
        "Host : h\r\n",
        " Host: h\r\n",
        "Host: h\r\nA: b\r\n folded\r\n",
        "Host: h\r\nA: b\rc\r\n",
        "Host: h\r\nA: b\0c\r\n",
        "Host: h\r\nA\0: b\r\n",
        "Host: h\r\n: b\r\n",
        "Host: h\r\nN(me: b\r\n",
        "Host: h\rA: b\r\n",
    ] {
        case(format!("GET / HTTP/1.1\r\n{fields}\r\n"), 400, true);
    }
    case(format!("GET / HTTP/1.1\r\n{host}{}\r\n", "a: b\r\n".repeat(64)), 431, true);
    case(format!("GET / HTTP/1.1\r\n{host}{}\r\n", "a: b\r\n".repeat(63)), 200, false);
    case(format!("GET / HTTP/1.1\r\n{host}a: {}\r\n\r\n", "b".repeat(17_000)), 431, true);
    case(format!("GET / HTTP/1.1\r\n{host}a: {}", "b".repeat(17_000)), 431, true);
    case(format!("GET / HTTP/1.1\r\n{host}a: {}\r\n\r\n", "b".repeat(16_000)), 200, false);
    // Framing.
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
    ] {
        case(format!("POST /echo HTTP/1.1\r\n{host}{fields}\r\nx"), 400, true);
        case(format!("GET / HTTP/1.1\r\n{host}{fields}\r\nx"), 400, true);
    }
    for coding in ["gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "xchunked", "\"chunked\"", ""] {
        case(format!("POST /echo HTTP/1.1\r\n{host}Transfer-Encoding: {coding}\r\n\r\n"), 501, true);
    }
    case("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400, true);
    case(format!("POST /echo HTTP/1.1\r\n{host}\r\n"), 411, false);
    case(format!("POST /show HTTP/1.1\r\n{host}Content-Length: 1001\r\n\r\n{}", "x".repeat(1001)), 413, false);
    case(format!("POST /show HTTP/1.1\r\n{host}Content-Length: 2000000\r\n\r\nxx"), 413, true);
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500)).repeat(3);
    case(format!("POST /show HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{chunk}"), 413, true);
    for body in ["x\r\n", "-1\r\n", "5\r\nhello world", "ffffffffffffffff\r\n", "1\nx\r\n0\r\n\r\n", "\r\n"] {
        case(format!("POST /show HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{body}"), 400, true);
    }
    // Expectations.
    case(format!("GET / HTTP/1.1\r\n{host}Expect: cookies\r\n\r\n"), 417, false);
    case(format!("POST /echo HTTP/1.1\r\n{host}Expect: cookies\r\nContent-Length: 5\r\n\r\n"), 417, true);
    case(format!("POST /small.txt HTTP/1.1\r\n{host}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"), 405, true);
    table
}

#[test]
fn each_gets_the_status_that_the_rfc_says() {
    for (request, status, ends) in table() {
        // A second request behind it must be answered, or must not, by what the first one left in doubt.
        let both = [request.as_bytes(), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        let unfinished = !request.contains("\n\r\n");
        let host = in_all_shapes(&SITE, if unfinished { request.as_bytes() } else { &both }, false);
        let answers = answers(host.wire.output(), &[]);
        let shown = &request[..request.len().min(120)];
        assert_eq!(answers.first().map(|answer| answer.status), Some(status), "{shown:?}");
        assert_eq!(host.wire.is_shut(), ends, "{shown:?}");
        assert_eq!(answers.len(), if ends { 1 } else { 2 }, "{shown:?}");
        let connection = answers[0].field("Connection");
        assert_eq!(connection, ends.then_some("close"), "{shown:?}");
        if !ends {
            assert_eq!(answers[1].status, 200, "{shown:?}");
        }
        assert_eq!(host.wire.unread(), 0, "what comes behind is read, so that no reset overtakes the answer");
    }
}

#[test]
fn a_request_that_ends_in_its_head_or_body_is_400() {
    for request in
        ["GET / HTTP/1.1\r\nHost: h\r\n", "G", "POST /show HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc"]
    {
        let host = in_all_shapes(&SITE, request.as_bytes(), true);
        let answers = answers(host.wire.output(), &[]);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [400], "{request}");
        assert!(host.wire.is_shut());
    }
    let host = in_all_shapes(&SITE, b"", true);
    assert!(host.wire.is_shut() && host.wire.output().is_empty());
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<Vec<u8>> = [
        "GET ",
        "POST ",
        "HEAD ",
        "/",
        "/echo",
        "/events",
        "/show",
        "/big.bin",
        "/small.txt",
        "/query?a=b&a",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: h\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Expect: 100-continue\r\n",
        "Range: bytes=1-2\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "hello",
        ": ",
        "\0",
        "%2e%2e",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /show HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    prop_oneof![
        8 => prop::sample::select(known),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..2000usize, 1..2000usize, 1..2000usize, 1..4usize).prop_map(|(arrival, piece, window, references)| Shape {
        arrival,
        piece,
        window,
        references,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_an_answer_or_a_close(parts in prop::collection::vec(fragment(), 0..24), shape in shape()) {
        let input = parts.concat();
        let whole = run_to_the_end(&input, Shape::WHOLE);
        let cut = run_to_the_end(&input, shape);
        prop_assert!(whole == cut, "{:?}\n{}\n-- and not --\n{}", shape, String::from_utf8_lossy(&whole), String::from_utf8_lossy(&cut));
    }
}

/// RFC 9110 9.3.2: whatever is wrong with it, and whenever that shows.
#[test]
fn no_refusal_of_a_head_has_a_body() {
    let field = "Host: h\r\n";
    for (request, end, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), false, 400),
        ("HEAD /\u{ff} HTTP/1.1\r\n\r\n".to_owned(), false, 400),
        (format!("HEAD / HTTP/9.9\r\n{field}\r\n"), false, 505),
        (format!("HEAD /{} HTTP/1.1\r\n{field}\r\n", "x".repeat(9000)), false, 414),
        (format!("HEAD / HTTP/1.1\r\n{field}"), true, 400),
        (format!("HEAD / HTTP/1.1\r\n{field}"), false, 408),
        (format!("HEAD /show HTTP/1.1\r\n{field}Content-Length: 9\r\n\r\nx"), false, 408),
        (format!("HEAD /show HTTP/1.1\r\n{field}Content-Length: 9\r\n\r\nx"), true, 400),
        (format!("HEAD /show HTTP/1.1\r\n{field}Transfer-Encoding: chunked\r\n\r\nx"), false, 400),
        (
            format!("HEAD /show HTTP/1.1\r\n{field}Transfer-Encoding: chunked\r\n\r\n7d0\r\n{}", "x".repeat(2000)),
            false,
            413,
        ),
    ] {
        for shape in Shape::ALL {
            let mut host = converse(http(&SITE), shape, request.as_bytes(), end);
            host.advance_ms(31_000);
            let output = String::from_utf8_lossy(host.wire.output());
            assert!(output.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {output}");
            assert!(output.ends_with("\r\n\r\n") && output.matches("\r\n\r\n").count() == 1, "{request:?}: {output}");
        }
    }
}

/// Sends `input` and the end of it, and lets every deadline pass. What was sent back.
fn run_to_the_end(input: &[u8], shape: Shape) -> Vec<u8> {
    let mut host = converse(http(&SITE), shape, input, true);
    host.advance_ms(10 * 60_000);
    assert!(host.wire.is_shut() || host.wire.is_aborted(), "still open after {:?}", String::from_utf8_lossy(input));
    host.wire.output().to_vec()
}
