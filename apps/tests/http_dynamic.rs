//! Callbacks, bodies, events, deadlines and the drain.

mod common;

use common::{Answer, DATE, answers, ask, config, get, http, in_all_shapes, router, site};
use khamsin::http::{Http, HttpConfig, Response, Router, Site};
use khamsin::testing::{Host, Shape, converse};
use khamsin_stack::{CloseReason, Stream};

fn post(site: &Site, target: &str, fields: &str, body: &str) -> Answer {
    ask(site, &format!("POST {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}"))
}

#[test]
fn echo_gives_bodies_back() {
    let site = site();
    let answer = post(&site, "/echo", "Content-Length: 5\r\n", "hello");
    assert_eq!((answer.status, &answer.body[..], answer.field("Content-Length")), (200, &b"hello"[..], Some("5")));
    assert_eq!(post(&site, "/echo", "Content-Length: 0\r\n", "").status, 200);
    let answer = post(
        &site,
        "/echo",
        "Transfer-Encoding: Chunked\r\n",
        "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n",
    );
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello world"[..]));
    assert_eq!(answer.field("Transfer-Encoding"), Some("chunked"));
    assert_eq!(post(&site, "/echo", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n").body, b"");
    let answer = get(&site, "/echo", "");
    assert_eq!((answer.status, answer.field("Allow")), (405, Some("POST, OPTIONS")));
    let host = in_all_shapes(&site, b"POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", false);
    assert_eq!(answers(host.wire.output(), &[])[0].body, b"hi");
    assert!(host.wire.is_shut());
}

#[test]
fn ten_megabytes_come_back_to_a_client_that_sends_before_it_reads() {
    let site = site();
    let body: Vec<u8> = (0..10_000_000u32).map(|i| (i % 253) as u8).collect();
    let head = format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let shape = Shape { arrival: 14_600, piece: 32_768, window: 262_144, references: 8 };
    let mut host = Host::open(http(&site), shape);
    host.reader = false;
    host.deliver(head.as_bytes());
    host.deliver(&body);
    assert_eq!(host.wire.unread(), 0, "all of it was read");
    host.reader = true;
    host.acknowledge();
    let all = answers(host.wire.output(), &[]);
    assert!(all[0].body == body);
    host.deliver(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answers(host.wire.output(), &[]).len(), 2, "the connection lives on");
}

#[test]
fn what_waits_in_memory_is_bounded_for_one_and_for_all() {
    let site = site();
    let body = vec![b'x'; 100_000];
    let head = format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    for limits in [HttpConfig { spill_max: 5000, ..config() }, HttpConfig { buffered_max: 5000, ..config() }] {
        let app = Http::new(limits, site.clone(), Router::builtin());
        let mut host = Host::open(app, Shape { window: 1000, ..Shape::WHOLE });
        host.reader = false;
        host.deliver(head.as_bytes());
        host.deliver(&body);
        let held = body.len() - host.wire.unread() - host.wire.output().len();
        assert!(held <= 5000, "{held}");
        assert!(host.wire.unread() > 90_000);
        host.reader = true;
        host.acknowledge();
        assert!(answers(host.wire.output(), &[])[0].body == body);
    }
    let app = Http::new(
        HttpConfig { buffered_max: 10, ..config() },
        site.clone(),
        Router::new().generic(|_| Response::new(200)),
    );
    let host =
        converse(app, Shape::WHOLE, b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n01234567890", false);
    assert_eq!(answers(host.wire.output(), &[]).len(), 1);
    assert_eq!(answers(host.wire.output(), &[])[0].status, 503);
}

#[test]
fn clients_that_wait_for_leave_get_it() {
    let site = site();
    for (target, body) in [("/echo", "hello"), ("/show", "body=hello")] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        let host = in_all_shapes(&site, request.as_bytes(), false);
        assert!(host.wire.output().starts_with(b"HTTP/1.1 100 Continue\r\n\r\n"));
        let host = in_all_shapes(&site, [request.as_bytes(), b"hello"].concat().as_slice(), false);
        let all = answers(host.wire.output(), &["POST"]);
        assert_eq!(all.iter().map(|answer| answer.status).collect::<Vec<_>>(), [100, 200]);
        assert!(String::from_utf8_lossy(&all[1].body).ends_with(body));
    }
    let old = in_all_shapes(&site, b"POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", false);
    assert_eq!(answers(old.wire.output(), &[])[0].status, 200, "HTTP/1.0 knows no 100");
}

#[test]
fn query_shows_parameters() {
    let site = site();
    let answer = get(&site, "/query?b=1&a=x+y%26z&b=2&b=%e2%82%ac&empty", "");
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json, serde_json::json!({ "a": "x y&z", "b": ["1", "2", "€"], "empty": "" }));
    assert_eq!(get(&site, "/query", "").body, b"{}\n");
    assert_eq!(post(&site, "/query", "Content-Length: 0\r\n", "").status, 405);
}

#[test]
fn callbacks_see_the_request() {
    let site = site();
    let answer = get(&site, "/show?a=b", "");
    assert_eq!(String::from_utf8(answer.body).unwrap(), "Get /show query=Some(\"a=b\") host=Some(\"h\") body=");
    for (fields, body) in
        [("Content-Length: 4\r\n", "data"), ("Transfer-Encoding: chunked\r\n", "1\r\nd\r\n3\r\nata\r\n0\r\n\r\n")]
    {
        let answer = post(&site, "/sh%6fw", fields, body);
        assert_eq!(String::from_utf8(answer.body).unwrap(), "Post /show query=None host=Some(\"h\") body=data");
    }
    assert_eq!(get(&site, "/tree/a/b", "").body, b"tree /tree/a/b");
    assert_eq!(get(&site, "/tree", "").status, 404);
}

#[test]
fn routes_go_before_files_and_the_generic_callback_behind() {
    let site = site();
    let router = Router::new()
        .route("/small.txt", |_| Response::text("route"))
        .prefix("/sub/", |_| Response::text("short prefix"))
        .prefix("/sub/deep/", |_| Response::text("long prefix"))
        .generic(|request| Response::new(202).body(request.path_bytes().to_vec()));
    let table = [
        ("/small.txt", "route"),
        ("/sub/", "short prefix"),
        ("/sub/deep/x", "long prefix"),
        ("/", "<p>welcome"),
        ("/else%20where", "/else where"),
    ];
    for (target, body) in table {
        let app = Http::new(config(), site.clone(), router.clone());
        let host = converse(app, Shape::WHOLE, format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(), false);
        assert_eq!(String::from_utf8(answers(host.wire.output(), &[])[0].body.clone()).unwrap(), body, "{target}");
    }
}

#[test]
fn events_come_once_a_second_until_the_drain() {
    let site = site();
    let mut host = converse(http(&site), Shape::WHOLE, b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n", false);
    host.advance_ms(3500);
    host.drain();
    let all = answers(host.wire.output(), &[]);
    assert_eq!(all[0].field("Content-Type"), Some("text/event-stream"));
    let text = String::from_utf8(all[0].body.clone()).unwrap();
    let events: Vec<_> = text.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0], format!("id: 1\ndata: {{\"count\":1,\"time\":\"{DATE}\"}}"));
    assert_eq!(events[3], "id: 4\ndata: {\"count\":4,\"time\":\"Sun, 06 Nov 1994 08:49:40 GMT\"}");
    assert!(host.wire.is_shut());

    let mut host = converse(http(&site), Shape::WHOLE, b"GET /events HTTP/1.0\r\n\r\n", false);
    host.advance_ms(1000);
    assert!(host.wire.output().ends_with(b"08:49:38 GMT\"}\n\n"));
    host.end_input();
    assert!(host.wire.is_shut(), "the peer is gone");
    assert_eq!(answers(host.wire.output(), &[])[0].field("Connection"), Some("close"));
}

#[test]
fn events_last_as_long_as_they_are_read() {
    let site = site();
    let mut host =
        converse(http(&site), Shape { window: 500, ..Shape::WHOLE }, b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n", false);
    for _ in 0..300 {
        host.advance_ms(1000);
        host.acknowledge();
    }
    assert!(!host.wire.is_aborted());
    host.reader = false;
    let sent = host.wire.output().len();
    host.advance_ms(62_000);
    assert!(host.wire.is_aborted(), "nobody reads");
    assert!(host.wire.output().len() - sent <= 500);
    assert_eq!(host.app.stats().stalled, 1);
}

#[test]
fn deadlines() {
    let site = site();
    // (what came, milliseconds until something happens, status or silence, reset)
    let table: [(&str, u64, Option<u16>, bool); 8] = [
        ("", 60_000, None, false),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 60_000, Some(200), false),
        ("G", 10_000, Some(408), false),
        ("GET / HTTP/1.1\r\nHost: h\r\n", 10_000, Some(408), false),
        ("POST /show HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab", 30_000, Some(408), false),
        ("POST /none HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab", 30_000, Some(404), false),
        ("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 30_000, None, false),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 60_000, Some(200), true),
    ];
    for (input, after_ms, status, reset) in table {
        let mut host = converse(http(&site), Shape::WHOLE, input.as_bytes(), false);
        let shut = host.wire.is_shut();
        host.acknowledge();
        host.advance_ms(after_ms - 1);
        assert!(!host.wire.is_aborted() && host.wire.is_shut() == shut, "{input:?} too early");
        host.advance_ms(2);
        assert!(host.wire.is_shut(), "{input:?} in time");
        assert_eq!(host.wire.is_aborted(), reset, "{input:?}");
        if let Some(status) = status {
            assert_eq!(answers(host.wire.output(), &[]).last().map(|answer| answer.status), Some(status), "{input:?}");
        }
        host.acknowledge();
        host.advance_ms(61_000);
        assert!(host.wire.is_aborted(), "{input:?}: a peer that never closes is reset");
    }
}

#[test]
fn a_head_that_drips_gets_no_more_time_than_one_that_stops() {
    let site = site();
    let mut host = Host::open(http(&site), Shape::WHOLE);
    for byte in b"GET / HTTP/1." {
        host.deliver(&[*byte]);
        host.advance_ms(900);
    }
    assert_eq!(answers(host.wire.output(), &[])[0].status, 408);
    assert_eq!(host.app.stats().timed_out, 1);
}

#[test]
fn a_reader_that_stops_is_reset_and_one_that_crawls_is_not() {
    let site = site();
    for crawls in [false, true] {
        let mut host = Host::open(http(&site), Shape { window: 100, references: 1, ..Shape::WHOLE });
        host.reader = false;
        host.deliver(&b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20));
        for _ in 0..10 {
            host.advance_ms(20_000);
            if crawls {
                host.acknowledge();
            }
        }
        assert_eq!(host.wire.is_aborted(), !crawls);
        assert_eq!(host.app.stats().stalled, u64::from(!crawls));
    }
}

#[test]
fn a_body_that_drips_gets_little_more_time_than_one_that_stops() {
    let site = site();
    // Collected, echoed, thrown away.
    for (target, status) in [("/show", 408), ("/echo", 200), ("/none", 404)] {
        for (bytes, seconds, passes) in
            [(1, 1, false), (200, 1, false), (1, 29, false), (240, 1, true), (2400, 10, true)]
        {
            let mut host = Host::open(
                Http::new(HttpConfig { body_max: 1 << 20, ..config() }, site.clone(), router()),
                Shape::WHOLE,
            );
            host.deliver(format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").as_bytes());
            let mut ended_s = None;
            for second in (0..600).step_by(seconds) {
                host.advance_ms(seconds as u64 * 1000);
                if host.wire.is_shut() {
                    ended_s = ended_s.or(Some(second));
                    break;
                }
                host.deliver(&vec![b'x'; bytes]);
            }
            let what = format!("{bytes} bytes in {seconds} s to {target}");
            assert_eq!(ended_s.is_none(), passes, "{what}: ended after {ended_s:?}");
            assert_eq!(host.app.stats().timed_out, u64::from(!passes), "{what}");
            if bytes == 1 {
                assert!(ended_s < Some(31), "{what}: ended after {ended_s:?}");
            }
            if !passes && target != "/echo" {
                assert_eq!(answers(host.wire.output(), &[])[0].status, status, "{what}");
            }
        }
    }
}

#[test]
fn a_body_that_waits_for_its_own_echo_is_not_late() {
    let site = site();
    let app = Http::new(HttpConfig { spill_max: 1000, ..config() }, site, router());
    let mut host = Host::open(app, Shape { window: 20_000, ..Shape::WHOLE });
    host.reader = false;
    host.deliver(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    host.deliver(&[b'x'; 60_000]);
    for _ in 0..2 {
        // 400 bytes a second, which is all that lets more of the body in.
        host.advance_ms(50_000);
        host.acknowledge_some(20_000);
        assert!(!host.wire.is_shut() && !host.wire.is_aborted());
    }
    assert_eq!(host.app.stats().timed_out + host.app.stats().stalled, 0);
}

#[test]
fn a_reader_that_drips_is_reset() {
    let site = site();
    // A file by reference, many of them, an echo that found no room: taken a little at a time.
    let echo = [&b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\n\r\n"[..], &[b'x'; 40_000]].concat();
    let get = b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
    for input in [get.clone(), get.repeat(5), echo] {
        for (bytes, passes) in [(1, false), (200, false), (250, true)] {
            let mut host = Host::open(http(&site), Shape { window: 3000, references: 1, ..Shape::WHOLE });
            host.reader = false;
            host.deliver(&input);
            for _ in 0..150 {
                host.advance_ms(1000);
                host.acknowledge_some(bytes);
            }
            let what = format!("{bytes} bytes a second of {}", String::from_utf8_lossy(&input[..20]));
            assert_eq!(!host.wire.is_aborted(), passes, "{what}");
            assert_eq!(host.app.stats().stalled, u64::from(!passes), "{what}");
        }
    }
}

#[test]
fn the_drain_ends_what_is_idle_and_finishes_what_is_not() {
    let site = site();
    let mut idle = converse(http(&site), Shape::WHOLE, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false);
    idle.drain();
    assert!(idle.wire.is_shut());

    let mut fresh = Host::open(http(&site), Shape::WHOLE);
    fresh.drain();
    assert!(fresh.wire.is_shut());

    let mut half = converse(http(&site), Shape::WHOLE, b"GET / HTTP/1.1\r\nHo", false);
    half.drain();
    assert!(!half.wire.is_shut());
    half.deliver(b"st: h\r\n\r\n");
    assert_eq!(answers(half.wire.output(), &[])[0].field("Connection"), Some("close"));
    assert!(half.wire.is_shut());

    let mut slow = Host::open(http(&site), Shape { references: 1, ..Shape::WHOLE });
    slow.reader = false;
    slow.deliver(&b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3));
    slow.drain();
    assert!(!slow.wire.is_shut());
    for _ in 0..3 {
        slow.acknowledge();
    }
    let all = answers(slow.wire.output(), &[]);
    assert!(slow.wire.is_shut());
    assert!(all.iter().all(|answer| answer.body == common::big()));
    assert_eq!(all.last().unwrap().field("Connection"), Some("close"));

    let mut late = Host::open(http(&site), Shape::WHOLE);
    late.deliver(b"GET /ev");
    late.drain();
    late.deliver(b"ents HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answers(late.wire.output(), &[])[0].status, 503);
}

#[test]
fn sessions_are_small_and_give_back_what_they_held() {
    assert!(
        std::mem::size_of::<khamsin::http::HttpSession>() <= 48,
        "{}",
        std::mem::size_of::<khamsin::http::HttpSession>()
    );
    let site = site();
    let mut app = Http::new(HttpConfig { buffered_max: 3000, ..config() }, site, Router::builtin());
    for _ in 0..10 {
        let mut host = Host::open(app, Shape { window: 300, ..Shape::WHOLE });
        host.reader = false;
        host.deliver(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n");
        host.deliver(&[b'x'; 5000]);
        let held = 5000 - host.wire.unread();
        assert!(held > 2900, "what former connections held was given back: {held}");
        assert!(host.wire.unacknowledged() > 0);
        app = host.close(CloseReason::PeerReset).0;
    }
}
