//! Request bytes into the HTTP application, cut in many ways.
//!
//! An input is six control bytes and the bytes of a connection. They are delivered whole, and in pieces, to the application
//! over streams of different shapes: the answers must be the same bytes. A second reader of requests ([`oracle`]) says how
//! many there were and which are not to be believed; the answers are read as a strict client would and held against that.

mod answer;
mod oracle;

use crate::source::{Dice, Input, Source};
use khamsin::http::{Http, HttpConfig, Loader, Response, Router, Site, SiteConfig};
use khamsin::testing::{Host, Shape};
use khamsin_stack::CloseReason;
use oracle::{Ask, BodyState};
use std::fs;
use std::time::Duration;

/// Largest body that is collected for a callback, bytes; far below what an input can hold.
const BODY_MAX: usize = 300;

thread_local! {
    static SITE: Site = site();
}

fn site() -> Site {
    let folder = tempfile::tempdir().expect("a folder for the files of the site");
    let big: Vec<u8> = (0..20_000u32).map(|i| b'a' + (i % 23) as u8).collect();
    for (name, bytes) in [
        ("index.html", &b"<p>welcome"[..]),
        ("s.txt", &[b's'; 64]),
        ("big", &big),
        ("empty", &[]),
        ("sub/index.html", b"<p>sub"),
        ("sub/a b+c.txt", b"odd"),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder of the site");
        fs::write(&path, bytes).expect("a file of the site");
        let file = fs::File::options().write(true).open(&path).expect("a file of the site");
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(700_000_000)).expect("a time of change");
    }
    let config = SiteConfig { reload: Duration::ZERO, ..SiteConfig::new(folder.path()) };
    Loader::start(config).expect("the site loads").0
}

fn http(site: &Site, events: bool) -> Http {
    let config = HttpConfig {
        unix_at_zero_us: 784_111_776_000_000,
        body_max: BODY_MAX,
        spill_max: 4096,
        buffered_max: 64 * 1024,
        ..HttpConfig::default()
    };
    let router = Router::builtin()
        .route("/show", |r| Response::text(format!("{:?} {} {:?}", r.method(), r.path(), r.query())))
        .route("/len", |r| Response::text(r.body().len().to_string()))
        .prefix("/t/", |r| Response::text(format!("tree {}", r.path())));
    // An event that finds no room is left out, so that what is sent depends on the shape of the stream.
    let router = if events { router } else { router.route("/events", |_| Response::new(204)) };
    Http::new(config, site.clone(), router)
}

/// How a connection goes on behind its last byte.
#[derive(Clone, Copy)]
struct Ending {
    /// The peer ends its stream.
    end: bool,
    /// The server drains.
    drain: bool,
    /// Time passes, milliseconds.
    wait_ms: u64,
}

/// One input of the target `http`.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let [shape, piece, window, cuts, flags, wait] = core::array::from_fn(|_| input.byte());
    let ending = Ending {
        end: flags & 1 != 0,
        drain: flags & 6 == 6,
        wait_ms: [0, 0, 0, 1_000, 11_000, 40_000, 100_000, 200_000][usize::from(wait & 7)],
    };
    let shape = match usize::from(shape) {
        n if n < Shape::ALL.len() => Shape::ALL[n],
        _ => Shape {
            arrival: usize::MAX,
            piece: 1 + usize::from(piece),
            window: 1 + usize::from(window) * 8,
            references: 1 + usize::from(shape & 3),
        },
    };
    let input = input.rest();
    SITE.with(|site| {
        if flags & 0x18 == 0x18 {
            let host = converse(http(site, true), shape, &cut(input, cuts), ending);
            check(input, &host, ending);
        } else {
            differential(site, input, shape, cuts, ending);
        }
    });
}

fn differential(site: &Site, input: &[u8], shape: Shape, cuts: u8, ending: Ending) {
    let first = converse(http(site, false), Shape::WHOLE, &[input], ending);
    check(input, &first, ending);
    let (output, shut, aborted) = (first.wire.output().to_vec(), first.wire.is_shut(), first.wire.is_aborted());
    let same = |other: &Host<Http>, how: &str| {
        let theirs = other.wire.output();
        // When patience ends depends on what was acknowledged last: one may have said more than the other by then.
        let waited = ending.wait_ms > 0 && (theirs.starts_with(&output) || output.starts_with(theirs));
        assert!(
            theirs == output || waited,
            "{how} {shape:?}: {:?}\n{}\n-- and not --\n{}",
            String::from_utf8_lossy(input),
            String::from_utf8_lossy(theirs),
            String::from_utf8_lossy(&output)
        );
        let ended = (other.wire.is_shut(), other.wire.is_aborted());
        assert!(ending.wait_ms > 0 || ended == (shut, aborted), "{how} {shape:?}: {ended:?}");
    };
    // The application that has seen the same heads before answers from memory. (Its clock does not go back.)
    if !ending.drain && ending.wait_ms == 0 {
        let (app, _) = first.close(CloseReason::Finished);
        same(&converse(app, Shape::WHOLE, &[input], ending), "again");
    }
    same(&converse(http(site, false), shape, &cut(input, cuts), ending), "in pieces");
    if input.len() <= 1024 {
        same(&converse(http(site, false), Shape { arrival: 1, ..shape }, &[input], ending), "by the byte");
    }
}

/// Pieces of `input`, chosen by `how`.
fn cut(input: &[u8], how: u8) -> Vec<&[u8]> {
    let mut dice = Dice::new(u64::from(how), u64::MAX);
    let most = [2usize, 8, 40, 300, 1460, 5000][usize::from(how) % 6];
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + dice.below(most)).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn converse(app: Http, shape: Shape, pieces: &[&[u8]], ending: Ending) -> Host<Http> {
    let mut host = Host::open(app, shape);
    for piece in pieces {
        host.deliver(piece);
    }
    if ending.drain {
        host.drain();
    }
    if ending.end {
        host.end_input();
    }
    if ending.wait_ms > 0 && !host.wire.is_aborted() {
        host.advance_ms(ending.wait_ms);
    }
    host
}

/// Holds the answers against what the second opinion says of the requests.
fn check(input: &[u8], host: &Host<Http>, ending: Ending) {
    let asks = oracle::read(input);
    let context = format!("{:?} {asks:?}", String::from_utf8_lossy(input));
    let mut output = host.wire.output();
    let mut over = false;
    // The last answer was one of events, which have no end of their own: a drain ends them, and the connection with them.
    let mut streamed = false;
    let mut asked = asks.iter();
    loop {
        let ask = asked.next();
        let to_head = matches!(ask, Some(Ask::Sound { method, .. }) if method == b"HEAD");
        let mut answer;
        loop {
            if output.is_empty() {
                let waits = matches!(ask, Some(Ask::Sound { state: BodyState::Partial, .. }));
                let drained = ending.drain && streamed && (host.wire.is_shut() || host.wire.is_aborted());
                assert!(ask.is_none() || over || waits || drained, "{context}: no answer to {ask:?}");
                return;
            }
            assert!(!over, "{context}: an answer behind the end");
            (answer, output) = answer::read(output, to_head, &context);
            if answer.status != 100 {
                break;
            }
            assert!(ask.is_some(), "{context}: 100 to nobody");
            if output.is_empty() {
                return;
            }
        }
        over = answer.closes || !answer.whole;
        match ask {
            None | Some(Ask::Bad(_)) => {
                assert!(answer.status >= 400 && answer.closes, "{context}: {} to {ask:?}", answer.status);
            }
            Some(Ask::Sound { method, target, body, state, .. }) => {
                streamed = method == b"GET" && target.ends_with(b"/events") && answer.status == 200;
                if *state == BodyState::Malformed {
                    // Where the answer does not need the body, it may be on its way before the fault shows: then the
                    // end of the connection is what tells of it.
                    let ended = host.wire.is_shut() || host.wire.is_aborted();
                    assert!(over || answer.status >= 400 || ended, "{context}: a body that is none is believed");
                    // What follows such a body must not be taken for a request.
                    over = true;
                }
                let echoes = method == b"POST" && target == b"/echo" && answer.status == 200;
                if echoes && !ending.drain {
                    let sent = &answer.body[..];
                    assert!(body.starts_with(sent), "{context}: the echo says what was not said");
                    assert!(*state != BodyState::Whole || sent.len() == body.len(), "{context}: the echo is cut short");
                }
            }
        }
    }
}
