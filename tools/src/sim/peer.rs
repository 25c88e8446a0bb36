//! Peers that keep to the rules: what each does, and whether the server did its part.

use super::dice::{Dice, pattern};
use super::scenario::Weather;
use super::server::{ECHO_PORT, FILES, HTTP_PORT};
use khamsin_drivers::sim::client::{ClientId, End, Options, Station};
use khamsin_stack::Instant;
use std::net::{IpAddr, SocketAddr};

mod answers;
mod driver;

pub use driver::Driver;

/// What a client wants of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// So many bytes, there and back.
    Echo(usize),
    /// Requests, one behind the other.
    Http {
        /// What is asked for.
        requests: Vec<Request>,
        /// All at once, before the first answer.
        pipelined: bool,
    },
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// One of the [`FILES`].
    File(usize),
    /// So many bytes, there and back.
    Upload(usize),
    /// A path that leads nowhere.
    Missing,
}

/// How a client takes what it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// At once.
    Eager,
    /// So many bytes at a time, and so many microseconds from one time to the next.
    Slow(usize, u64),
    /// Nothing for so many microseconds, then at once.
    Late(u64),
}

/// How a client goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// It ends its stream behind its last byte and takes the rest of the answers.
    HalfClose,
    /// It ends its stream when it has everything.
    Done,
    /// It asks the server to close, and closes when it has everything.
    AskToClose,
    /// It resets the connection so many microseconds after it began.
    Abort(u64),
    /// It loses its memory then, and answers everything with a reset.
    Vanish(u64),
}

/// A peer that keeps to the rules.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// Which of the scenario's.
    pub number: usize,
    /// When it begins, microseconds.
    pub start_us: u64,
    /// Its connection is over IPv6.
    pub v6: bool,
    /// Its TCP.
    pub options: Options,
    /// What it wants.
    pub job: Job,
    /// Bytes that it hands to its TCP at a time, and time in between, microseconds.
    pub write: (usize, u64),
    /// How it reads.
    pub reader: Reader,
    /// How it goes.
    pub leave: Leave,
}

impl ClientPlan {
    /// The plan of the client with this number.
    pub fn new(seed: u64, number: usize, mtu: usize, weather: Weather) -> ClientPlan {
        let mut dice = Dice::new(seed, &format!("client {number}"));
        let v6 = mtu >= 1280 && dice.chance(40);
        let options = options(&mut dice, mtu - if v6 { 60 } else { 40 });
        // Go-back-N over tiny segments takes hours and shows nothing more.
        let most = 150 * options.segment_max.min(options.mss.into()).min(options.window);
        let job = if dice.chance(45) { echo(&mut dice, most) } else { http(&mut dice, most) };
        let storm = weather == Weather::Storm;
        let after_us = dice.scaled(1_000, 2_000_000);
        let leave = match dice.below(100) {
            0..=44 => Leave::HalfClose,
            45..=69 => Leave::Done,
            70..=89 => Leave::AskToClose,
            90..=96 => Leave::Abort(after_us),
            _ if storm => Leave::Vanish(after_us),
            _ => Leave::Abort(after_us),
        };
        let reader = match dice.below(10) {
            0..=6 => Reader::Eager,
            7..=8 => Reader::Slow(dice.scaled(100, 20_000) as usize, dice.scaled(1_000, 300_000)),
            _ => Reader::Late(dice.scaled(10_000, 8_000_000)),
        };
        let write = match dice.chance(70) {
            true => (usize::MAX, 0),
            false => (dice.scaled(1, 4_000) as usize, dice.scaled(10, 50_000)),
        };
        ClientPlan { number, start_us: dice.scaled(1_000, 1_000_000), v6, options, job, write, reader, leave }
    }

    /// Makes the work smaller.
    pub fn divide(&mut self, by: u64) {
        let less = |n: &mut usize| *n = (*n / by as usize).max(1);
        match &mut self.job {
            Job::Echo(len) => less(len),
            Job::Http { requests, .. } => {
                requests.truncate(requests.len().div_ceil(by as usize));
                for request in requests {
                    match request {
                        Request::Upload(len) => less(len),
                        Request::File(index) => *index /= by as usize,
                        Request::Missing => {}
                    }
                }
            }
        }
    }

    /// Where it connects to.
    pub fn port(&self) -> u16 {
        if matches!(self.job, Job::Echo(_)) { ECHO_PORT } else { HTTP_PORT }
    }

    /// Whether it ends the connection before its time.
    pub fn gives_up(&self) -> bool {
        matches!(self.leave, Leave::Abort(_) | Leave::Vanish(_))
    }
}

fn options(dice: &mut Dice, mss_max: usize) -> Options {
    let mss = match dice.below(20) {
        0 => dice.between(48, 100) as usize,
        1..=3 => dice.between(100, 1_000) as usize,
        _ => mss_max,
    };
    let mss = mss.min(mss_max);
    let window_scale = if dice.chance(65) { Some(dice.between(0, 14) as u8) } else { None };
    let window = match dice.below(10) {
        0 => dice.scaled(1, 1_000) as usize,
        1..=2 => dice.scaled(1_000, 20_000) as usize,
        _ => dice.scaled(20_000, 1 << 21) as usize,
    };
    // What the scale would round down to nothing is no window at all.
    let least = 1usize << window_scale.unwrap_or(0);
    let window = window.max(least).min(if window_scale.is_some() { 1 << 21 } else { 65_535 });
    Options {
        mss: mss as u16,
        segment_max: if dice.chance(90) { mss_max } else { dice.scaled(1, 300) as usize },
        flight_max: dice.scaled(1_000, 200_000) as usize,
        window: window.min(65_535 << window_scale.unwrap_or(0)),
        window_scale,
        rto_us: 3_000_000,
        retries_max: 14,
        isn: if dice.chance(30) { u32::MAX - dice.below(100_000) as u32 } else { dice.next() as u32 },
        time_wait_us: 3_000_000_000,
        partial_checksums: false,
        sack: dice.chance(65),
        timestamps: dice.chance(55),
        ack_delay_us: if dice.chance(40) { dice.pick(&[1_000, 40_000, 200_000]) } else { 0 },
    }
}

fn echo(dice: &mut Dice, most: usize) -> Job {
    let largest = if dice.below(200) == 0 { 1_000_000 } else { 60_000 };
    Job::Echo((dice.scaled(1, largest) as usize).min(most))
}

fn http(dice: &mut Dice, most: usize) -> Job {
    let rare = dice.below(100) == 0;
    let requests = (0..dice.pick(&[1, 1, 2, 3, 6]))
        .map(|_| match dice.below(10) {
            0..=6 => {
                let fits = FILES.iter().filter(|&&len| len <= most && (rare || len <= 120_000)).count();
                Request::File(dice.below(fits as u64) as usize)
            }
            7..=8 => Request::Upload((dice.scaled(1, 50_000) as usize).min(most)),
            _ => Request::Missing,
        })
        .collect();
    Job::Http { requests, pipelined: dice.chance(50) }
}
