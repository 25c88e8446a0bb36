//! What a request costs the HTTP application alone, without a stack: `http_cost CASE REQUESTS`.
//!
//! Instructions: `valgrind --tool=callgrind --toggle-collect='*measured*' target/release/examples/http_cost CASE 10000`,
//! divided by the requests. The stream is a slice and an array: what is counted is finding, parsing, looking up and copying.
//!
//! Cases: `same` (each connection asks the same, as load generators and probes do), `new` (each head is another, so that
//! none is remembered), `browser` (the same with the ten fields of a browser), `shared` (8,046 bytes by reference),
//! `none` (404).
#![allow(clippy::unwrap_used, missing_docs)]

use khamsin::http::{Http, HttpConfig, Loader, Router, SiteConfig};
use khamsin_stack::{App, Content, Instant, Listener, Stream};
use std::net::{Ipv4Addr, SocketAddr};

struct Plain<'a> {
    input: &'a [u8],
    output: [u8; 4096],
    sent: usize,
    shared: usize,
}

impl Stream for Plain<'_> {
    fn recv(&mut self, read: impl FnOnce(&[u8]) -> usize) -> usize {
        let n = read(self.input);
        self.input = &self.input[n..];
        n
    }
    fn finished(&self) -> bool {
        false
    }
    fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let n = write(&mut self.output);
        self.sent += n;
        n
    }
    fn send_shared(&mut self, _: &Content, range: core::ops::Range<usize>) -> bool {
        self.shared += range.len();
        true
    }
    fn send_capacity(&self) -> usize {
        4096
    }
    fn unacknowledged(&self) -> u64 {
        0
    }
    fn wake_at(&mut self, _: Option<Instant>) {}
    fn shutdown(&mut self) {}
    fn abort(&mut self) {}
}

#[inline(never)]
fn measured(
    app: &mut Http,
    requests: &[String],
    sessions: &mut [<Http as App>::Session],
    count: usize,
) -> (usize, usize) {
    let mut stream = Plain { input: &[], output: [0; 4096], sent: 0, shared: 0 };
    for i in 0..count {
        stream.input = requests[i % requests.len()].as_bytes();
        let session = i % sessions.len();
        app.ready(Instant::from_micros(5_000_000 + i as u64), &mut sessions[session], &mut stream);
    }
    (stream.sent, stream.shared)
}

fn main() {
    let case = std::env::args().nth(1).unwrap_or("same".into());
    let count: usize = std::env::args().nth(2).map_or(10_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    for (name, len) in [("a.txt", 64), ("b.txt", 64), ("c.bin", 8046), ("d.bin", 8046)] {
        std::fs::write(folder.path().join(name), vec![b'x'; len]).unwrap();
    }
    let (site, loader) = Loader::start(SiteConfig::new(folder.path())).unwrap();
    let mut app = Http::new(HttpConfig::default(), site, Router::builtin());
    let get = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: 198.18.0.2\r\n\r\n");
    let fields = "Host: 198.18.0.2\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
                  Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
                  Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n\
                  Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nPriority: u=0, i\r\n";
    let each = |make: &dyn Fn(usize) -> String| (0..count).map(make).collect::<Vec<_>>();
    let requests = match case.as_str() {
        "same" => vec![get("a.txt")],
        "new" => each(&|i| get(&format!("a.txt?{i:05}"))),
        "browser" => each(&|i| format!("GET /a.txt?{i:05} HTTP/1.1\r\n{fields}\r\n")),
        "shared" => vec![get("c.bin"), get("d.bin")],
        "none" => vec![get("none")],
        _ => panic!("no such case: {case}"),
    };
    let peer = SocketAddr::from((Ipv4Addr::new(198, 18, 0, 1), 40_000));
    let mut sessions: Vec<_> = (0..64).map(|_| app.open(Instant::ZERO, Listener { app: 0, port: 80 }, peer)).collect();
    // Once before it counts: dates, deadlines and shared content are made at first use.
    for _ in 0..64 {
        app.ready(
            Instant::from_micros(5_000_000),
            &mut sessions[0],
            &mut Plain { input: requests[0].as_bytes(), output: [0; 4096], sent: 0, shared: 0 },
        );
    }
    let (sent, shared) = measured(&mut app, &requests, &mut sessions, count);
    println!("{case}: {count} requests, {sent} bytes copied, {shared} by reference, {:?}", app.stats());
    println!("session: {} bytes", size_of::<<Http as App>::Session>());
    drop(loader);
}
