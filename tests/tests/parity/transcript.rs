//! What a client does, as data, and the one interpreter that does it over any kind of connection.

use anyhow::{Result, bail};
use khamsin_tests::pages::pattern;
use std::time::Duration;

/// Which application a transcript talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Service {
    Echo,
    Http,
}

impl Service {
    /// Its port in these tests.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Service::Echo => 7,
            Service::Http => 80,
        }
    }
}

/// One thing that a client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Hands these bytes over as fast as they are taken, reading nothing meanwhile.
    Send(Vec<u8>),
    /// Hands them over one by one, a millisecond apart: a segment each.
    SendBytewise(Vec<u8>),
    /// Reads until that many more bytes have come.
    Await(usize),
    /// Sends these bytes and reads as many, both at once.
    Exchange(Vec<u8>),
    /// The same, but reads at most 3,000 bytes each millisecond.
    ExchangeSlowly(Vec<u8>),
    /// Neither sends nor reads for so long.
    Rest(Duration),
    /// Ends its half of the connection.
    EndSending,
    /// Reads until the server ends its half.
    AwaitEnd,
    /// Resets the connection.
    Reset,
}

/// A connection's worth of steps.
pub(crate) struct Transcript {
    pub(crate) name: &'static str,
    pub(crate) service: Service,
    /// Receive buffer of the client, bytes; `None`: its usual one.
    pub(crate) window: Option<usize>,
    pub(crate) steps: Vec<Step>,
    /// What must come back, where that is known beforehand.
    pub(crate) expect: Option<Vec<u8>>,
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Read {
    Bytes(usize),
    Nothing,
    End,
    Reset,
}

/// A client's end of a connection, in real or in virtual time. Nothing here waits but `pass`.
pub(crate) trait Client {
    /// Hands over as many of these bytes as are taken now.
    fn send(&mut self, bytes: &[u8]) -> Result<usize>;
    /// Appends at most `most` bytes that have come.
    fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Result<Read>;
    /// Ends this half.
    fn end_sending(&mut self) -> Result<()>;
    /// Arranges that the connection is reset when this is dropped, which the interpreter's caller does next.
    fn reset(&mut self) -> Result<()>;
    /// Lets this much time go by; less where there is room to `send` or something to `receive`, whichever is asked for.
    fn pass(&mut self, time: Duration, send: bool, receive: bool) -> Result<()>;
}

/// How a connection ended for its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The server ended its half.
    End,
    /// The client reset it.
    Reset,
    /// The server reset it.
    WasReset,
}

const TICK: Duration = Duration::from_millis(1);
/// Ticks without any progress after which a step is given up.
const PATIENCE: u32 = 20_000;

/// Runs the steps; returns everything that came back, and how it ended.
///
/// # Errors
/// A step makes no progress, or the connection ends where a step wants bytes.
pub(crate) fn run(transcript: &Transcript, client: &mut impl Client) -> Result<(Vec<u8>, Ending)> {
    let mut got = Vec::new();
    for (i, step) in transcript.steps.iter().enumerate() {
        let began = got.len();
        let ended = match step {
            Step::Send(bytes) => exchange(client, bytes, &mut got, 0, None)?,
            Step::SendBytewise(bytes) => {
                for byte in bytes {
                    exchange(client, &[*byte], &mut got, 0, None)?;
                    client.pass(TICK, false, false)?;
                }
                None
            }
            Step::Await(len) => exchange(client, &[], &mut got, *len, None)?,
            Step::Exchange(bytes) => exchange(client, bytes, &mut got, bytes.len(), None)?,
            Step::ExchangeSlowly(bytes) => exchange(client, bytes, &mut got, bytes.len(), Some(3000))?,
            Step::Rest(time) => {
                let ticks = time.as_millis() / TICK.as_millis();
                (0..ticks).try_for_each(|_| client.pass(TICK, false, false))?;
                None
            }
            Step::EndSending => {
                client.end_sending()?;
                None
            }
            Step::AwaitEnd => exchange(client, &[], &mut got, usize::MAX, None)?,
            Step::Reset => {
                client.reset()?;
                Some(Ending::Reset)
            }
        };
        if let Some(ended) = ended {
            if i + 1 < transcript.steps.len() {
                bail!("step {i} ended the connection ({ended:?}) after {} bytes of its own", got.len() - began);
            }
            return Ok((got, ended));
        }
    }
    bail!("the transcript leaves its connection open");
}

/// Sends `bytes` and reads until `wanted` bytes more have come, or the end where `wanted` is boundless.
fn exchange(
    client: &mut impl Client,
    bytes: &[u8],
    got: &mut Vec<u8>,
    wanted: usize,
    slowly: Option<usize>,
) -> Result<Option<Ending>> {
    let (mut sent, began, mut idle) = (0, got.len(), 0);
    while sent < bytes.len() || got.len() - began < wanted {
        let mut moved = false;
        if sent < bytes.len() {
            let n = client.send(&bytes[sent..])?;
            sent += n;
            moved |= n > 0;
        }
        let left = wanted - (got.len() - began);
        if left > 0 {
            match client.receive(got, left.min(slowly.unwrap_or(1 << 17)))? {
                Read::Bytes(_) => moved = true,
                Read::Nothing => {}
                Read::End => return Ok(Some(Ending::End)),
                Read::Reset => return Ok(Some(Ending::WasReset)),
            }
        }
        idle = if moved { 0 } else { idle + 1 };
        if idle > PATIENCE {
            bail!("stuck: {sent} of {} bytes sent, {} of {wanted} received", bytes.len(), got.len() - began);
        }
        if slowly.is_some() {
            client.pass(TICK, false, false)?;
        } else if !moved {
            client.pass(TICK, sent < bytes.len(), got.len() - began < wanted)?;
        }
    }
    Ok(None)
}

/// Everything that parity is asked of.
pub(crate) fn transcripts() -> Vec<Transcript> {
    let megabytes = pattern(10_000_000, 21);
    let bytewise = pattern(300, 22);
    let half = pattern(100_000, 23);
    let (slow_first, slow_second) = (pattern(400_000, 24), pattern(150_000, 25));
    let last = pattern(5000, 26);
    let echo = |name, steps, expect: &[&[u8]]| Transcript {
        name,
        service: Service::Echo,
        window: None,
        steps,
        expect: Some(expect.concat()),
    };
    let http = |name, steps| Transcript { name, service: Service::Http, window: None, steps, expect: None };
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: parity\r\n{more}\r\n").into_bytes();
    let pipeline: Vec<u8> = ["/small", "/page", "/sub/a.txt", "/not-there", "/query?a=1&b=%20x"]
        .iter()
        .cycle()
        .take(40)
        .map(|path| request(path, ""))
        .chain([request("/page", "Connection: close\r\n")])
        .flatten()
        .collect();
    vec![
        http("pipelining", vec![Step::Send(pipeline), Step::AwaitEnd]),
        http(
            "http_a_byte_at_a_time",
            vec![Step::SendBytewise(request("/page", "Connection: close\r\nRange: bytes=10-99\r\n")), Step::AwaitEnd],
        ),
        http("http_half_close", vec![Step::Send(request("/page", "")), Step::EndSending, Step::AwaitEnd]),
        http("http_nonsense", vec![Step::Send(b"NONSENSE\r\n\r\n".to_vec()), Step::AwaitEnd]),
        echo(
            "a_byte_at_a_time",
            vec![Step::SendBytewise(bytewise.clone()), Step::Await(300), Step::EndSending, Step::AwaitEnd],
            &[&bytewise],
        ),
        echo("reset", vec![Step::Exchange(last.clone()), Step::Reset], &[&last]),
        echo("half_close", vec![Step::Send(half.clone()), Step::EndSending, Step::AwaitEnd], &[&half]),
        echo("nothing_but_an_end", vec![Step::EndSending, Step::AwaitEnd], &[]),
        Transcript {
            window: Some(4096),
            ..echo(
                "slow_reader",
                vec![
                    Step::ExchangeSlowly(slow_first.clone()),
                    Step::Send(slow_second.clone()),
                    Step::Rest(Duration::from_millis(1500)),
                    Step::Await(slow_second.len()),
                    Step::Exchange(last.clone()),
                    Step::EndSending,
                    Step::AwaitEnd,
                ],
                &[&slow_first, &slow_second, &last],
            )
        },
        echo(
            "ten_megabytes_both_ways",
            vec![Step::Exchange(megabytes.clone()), Step::EndSending, Step::AwaitEnd],
            &[&megabytes],
        ),
    ]
}
