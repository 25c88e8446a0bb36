//! How many frames one core echoes over AF_XDP native: 64-byte frames in at the rate another core can send.
//!
//! In an ordinary test run it takes a third of a second and checks that what comes in goes out. For a figure:
//! `KHAMSIN_RATE_SECONDS=5 cargo test --profile fast -p khamsin-drivers --test af_xdp_rate -- --nocapture --test-threads=1`

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod af_xdp_support;

use af_xdp_support::*;
use khamsin_drivers::af_xdp::{Config, Mode, XdpQueue, open};
use khamsin_drivers::clock::Clock;
use khamsin_stack::{Frame, Instant, Queue, TxOffload};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The length of run and whether figures are printed.
fn length() -> (Duration, bool) {
    match std::env::var("KHAMSIN_RATE_SECONDS").ok().and_then(|s| s.parse().ok()) {
        Some(seconds) => (Duration::from_secs(seconds), true),
        None => (Duration::from_millis(300), false),
    }
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Sends segment-like frames to the server as fast as the ring takes them; counts what comes back.
fn blast(queue: &mut XdpQueue, len: usize, stop: &AtomicBool) -> u64 {
    let mut burst = Vec::with_capacity(64);
    let mut back = 0;
    while !stop.load(Ordering::Relaxed) {
        queue.begin();
        back += queue.rx_burst(&mut burst, 64) as u64;
        burst.drain(..).for_each(|frame| queue.release(frame));
        for _ in 0..64 {
            let Some(mut frame) = queue.alloc_tx() else { break };
            frame.set_len(len);
            udp(frame.bytes_mut(), 7777);
            let bytes = frame.bytes_mut();
            bytes[..6].copy_from_slice(&SERVER_MAC);
            bytes[6..12].copy_from_slice(&CLIENT_MAC);
            bytes[23] = 6;
            bytes[26..30].copy_from_slice(&CLIENT.octets());
            bytes[30..34].copy_from_slice(&SERVER.octets());
            queue.tx(frame, TxOffload::NONE);
        }
        queue.end();
    }
    back
}

/// CPU time of this thread, seconds: tells the cost of a frame on a machine that others use too.
fn cpu_seconds() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// What a run of the echo came to.
struct Echoed {
    frames: u64,
    seconds: f64,
    /// CPU seconds of the turns in which frames came.
    busy: f64,
}

/// Swaps addresses and sends back in place, spinning, until `length` after the first frame.
fn reflect(queue: &mut XdpQueue, length: Duration) -> Echoed {
    let mut burst = Vec::with_capacity(64);
    let (mut count, mut turns, mut first, mut now) = (0, 0u64, None, Instant::ZERO);
    let (mut busy, mut idle_at) = (0.0, cpu_seconds());
    loop {
        if turns % 64 == 0 {
            now = Clock.now();
            if first.is_some_and(|f| now.since(f) >= length) {
                break;
            }
        }
        turns += 1;
        queue.begin();
        let received = queue.rx_burst(&mut burst, 64);
        for mut frame in burst.drain(..) {
            let bytes = frame.bytes_mut();
            if bytes.len() < 42 || bytes[23] != 6 {
                queue.release(frame);
                continue;
            }
            let (to, from) = bytes[..12].split_at_mut(6);
            to.swap_with_slice(from);
            let (to, from) = bytes[26..34].split_at_mut(4);
            to.swap_with_slice(from);
            count += 1;
            queue.tx(frame, TxOffload::NONE);
        }
        queue.end();
        if received == 0 {
            (0..30).for_each(|_| std::hint::spin_loop());
            idle_at = cpu_seconds();
            continue;
        }
        first.get_or_insert(now);
        let busy_at = cpu_seconds();
        busy += busy_at - idle_at;
        idle_at = busy_at;
    }
    Echoed { frames: count, seconds: now.since(first.unwrap_or(now)).as_micros() as f64 / 1e6, busy }
}

fn rate(len: usize) {
    let Some(pair) = Pair::new(1) else { return };
    let (length, print) = length();
    let server = Config { frames_per_queue: 16_384, ..config(Mode::Native) };
    let client = Config { interface: "veth0".into(), steering: own(&[CLIENT]), ..server.clone() };
    let (mut servers, _a) = inside(&pair.server, || open(&server)).unwrap();
    let (mut clients, _b) = inside(&pair.client, || open(&client)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let blaster = scope.spawn(|| {
            pin(0);
            blast(&mut clients[0], len, &stop)
        });
        pin(1);
        let Echoed { frames, seconds, busy } = reflect(&mut servers[0], length);
        stop.store(true, Ordering::Relaxed);
        let back = blaster.join().unwrap();
        let stats = servers[0].stats();
        if print {
            let (kpps, per_cpu) = (frames as f64 / seconds / 1e3, frames as f64 / busy / 1e3);
            println!("echo of {} B frames: {kpps:.0} kpps, {per_cpu:.0} thousand a busy CPU second", len + 4);
            println!("  {back} came back; {stats:?}");
        }
        assert!(frames > 1000 && back > 0, "{stats:?}");
        assert_eq!((stats.invalid_descs, stats.rx_frames), (0, stats.tx_frames + stats.tx_errors), "{stats:?}");
    });
}

#[test]
fn echo_of_small_frames() {
    rate(60);
}

#[test]
fn echo_of_large_frames() {
    rate(1496);
}
