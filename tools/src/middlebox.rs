//! A middlebox in user space: frames between two TAPs, impaired as a [`Path`] says.
//!
//! No kernel module and no queueing discipline takes part, and neither end is asked for an offload, so whatever stack
//! stands at an end is treated alike. One thread carries 1 Gbit/s of full frames: it works through all that has arrived
//! and all that is due and then sleeps for some tens of microseconds, as a NIC with interrupt moderation does. What the
//! machine did to it meanwhile it reports ([`Passage`]): a run that was disturbed can be told from one that was not.

mod line;

use anyhow::{Context, Result};
use khamsin_drivers::clock::Clock;
use khamsin_drivers::sim::{Path, Side, Verdict};
use khamsin_stack::Instant;
use line::{Flight, Line};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, write};
use std::os::fd::OwnedFd;

/// Frames read from one side before the other has its turn.
const BURST: usize = 64;
/// How long it sleeps between two turns in which there was something to do, microseconds: 4 full frames at 1 Gbit/s, and
/// 0.3 % of a round trip of 20 ms.
const MODERATION_US: u64 = 50;
/// Longest sleep, microseconds: so often it is asked whether it is to stop.
const SLEEP_MAX_US: u64 = 5_000;
/// What frames that are not impaired take to the other side, microseconds.
const PLAIN_DELAY_US: u64 = 200;

/// What passed, and how punctually.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// Frames read from the server's TAP and from the client's.
    pub read: [u64; 2],
    /// Frames that no path judged: ARP, other connections.
    pub plain: u64,
    /// Frames written to either side.
    pub written: u64,
    /// Frames that were due and could not be written.
    pub refused: u64,
    /// Frames dropped because the delay line was full. Not a fault that anybody asked for.
    pub overrun: u64,
    /// Frames written more than [`Passage::LATE_US`] after they were due.
    pub late: u64,
    /// The latest of them, microseconds.
    pub late_max_us: u64,
    /// Longest time that the thread was kept from its work, microseconds: frames that arrived meanwhile were taken in late.
    pub stall_max_us: u64,
    /// Sum of all lateness, microseconds.
    pub late_sum_us: u64,
}

impl Passage {
    /// What counts as late, microseconds: a tenth of the way one way at 20 ms round trip.
    pub const LATE_US: u64 = 1_000;

    /// Why a measurement through this middlebox is worth nothing, if it is not.
    pub fn objection(&self) -> Option<String> {
        let late_share = self.late as f64 / self.written.max(1) as f64;
        if self.overrun + self.refused > 0 {
            return Some(format!("{} frames overran and {} were refused", self.overrun, self.refused));
        }
        if late_share > 0.01 || self.stall_max_us > 20_000 {
            return Some(format!(
                "{:.2} % of the frames were late (worst {} us); longest stall {} us",
                100.0 * late_share,
                self.late_max_us,
                self.stall_max_us
            ));
        }
        None
    }

    /// Mean lateness of a frame, microseconds.
    pub fn late_mean_us(&self) -> f64 {
        self.late_sum_us as f64 / self.written.max(1) as f64
    }
}

/// Two TAPs and what is on the way between them. [`Side::Left`] is the server's.
pub struct Middlebox {
    taps: [OwnedFd; 2],
    line: Line,
}

impl Middlebox {
    /// A middlebox between two descriptors of [`khamsin_drivers::tap::open_plain`], the server's and the client's.
    pub fn new(server: OwnedFd, client: OwnedFd) -> Self {
        Middlebox { taps: [server, client], line: Line::new() }
    }

    /// Carries frames until `stop` says so, which is asked every few milliseconds at least. The TCP segments from or to
    /// `client_port` go through `path`; everything else passes faultlessly and does not count there.
    ///
    /// # Errors
    /// A TAP is gone.
    pub fn forward(
        &mut self,
        path: &mut Path,
        client_port: u16,
        mut stop: impl FnMut(Instant, &Passage) -> bool,
    ) -> Result<Passage> {
        let mut passage = Passage::default();
        let mut wanted = Clock.now();
        loop {
            let now = Clock.now();
            passage.stall_max_us = passage.stall_max_us.max(now.micros_since(wanted));
            let mut busy = false;
            for side in [Side::Left, Side::Right] {
                busy |= self.take_in(side, now, path, client_port, &mut passage)?;
            }
            busy |= self.let_out(&mut passage);
            let after = Clock.now();
            passage.stall_max_us = passage.stall_max_us.max(after.micros_since(now));
            if stop(after, &passage) {
                return Ok(passage);
            }
            wanted = self.rest(after, busy)?;
        }
    }

    /// Reads what has arrived at `side`. Whether that was anything.
    fn take_in(
        &mut self,
        side: Side,
        now: Instant,
        path: &mut Path,
        client_port: u16,
        passage: &mut Passage,
    ) -> Result<bool> {
        for count in 0..BURST {
            let len = match read(&self.taps[side as usize], self.line.room()) {
                Ok(len) => len,
                Err(rustix::io::Errno::AGAIN) => return Ok(count > 0),
                Err(e) => return Err(e).context("read from a TAP"),
            };
            passage.read[side as usize] += 1;
            let to = side.other();
            if !belongs(&self.line.room()[..len], side, client_port) {
                passage.plain += 1;
                let at = now.plus_micros(PLAIN_DELAY_US);
                passage.overrun += u64::from(!self.line.push(at, to, len, None));
                continue;
            }
            let Verdict::Delivered(delivery) = path.offer(now, side, len) else { continue };
            if let Some(at) = delivery.copy_at {
                passage.overrun += u64::from(!self.line.push_copy(at, to, len));
            }
            passage.overrun += u64::from(!self.line.push(delivery.at, to, len, delivery.flipped_bit));
        }
        Ok(true)
    }

    /// Writes what is due. Whether that was anything.
    fn let_out(&mut self, passage: &mut Passage) -> bool {
        let mut any = false;
        let mut now = Clock.now();
        // Bounded, so that what arrives is not left lying: the kernel's part of receiving happens inside these writes.
        for count in 1..=2 * BURST {
            let Some(Flight { at, to, frame }) = self.line.pop_due(now) else { return any };
            any = true;
            match write(&self.taps[to as usize], self.line.bytes(&frame)) {
                Ok(_) => passage.written += 1,
                Err(_) => passage.refused += 1,
            }
            self.line.free(frame);
            let late_us = now.micros_since(at);
            passage.late_sum_us += late_us;
            passage.late += u64::from(late_us > Passage::LATE_US);
            passage.late_max_us = passage.late_max_us.max(late_us);
            if count % 8 == 0 {
                now = Clock.now();
            }
        }
        any
    }

    /// Sleeps, and says until when it meant to.
    fn rest(&self, now: Instant, busy: bool) -> Result<Instant> {
        let until_due_us = self.line.next_due().map_or(SLEEP_MAX_US, |due| due.micros_since(now)).min(SLEEP_MAX_US);
        // While there is traffic a frame that arrives may wait for the next turn; after an idle one it ends the sleep.
        let sleep_us = if busy { MODERATION_US } else { until_due_us };
        let timeout = Timespec { tv_sec: 0, tv_nsec: 1000 * sleep_us.cast_signed() };
        let mut fds = self.taps.each_ref().map(|tap| PollFd::new(tap, PollFlags::IN));
        let heard = if busy { &mut fds[..0] } else { &mut fds[..] };
        match poll(heard, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(now.plus_micros(sleep_us)),
            Err(e) => Err(e).context("wait for a TAP"),
        }
    }
}

/// Whether a frame that `from` sends is a TCP segment of the connection with this port at the client.
fn belongs(frame: &[u8], from: Side, client_port: u16) -> bool {
    let port_at = if from == Side::Right { 0 } else { 2 };
    let tcp_at = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, version, ..] if frame.get(23) == Some(&6) => {
            14 + 4 * usize::from(version & 0xf)
        }
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ..] if frame.get(20) == Some(&6) => 54,
        _ => return false,
    };
    let port = frame.get(tcp_at + port_at..tcp_at + port_at + 2);
    port == Some(&client_port.to_be_bytes())
}

#[cfg(test)]
mod tests;
