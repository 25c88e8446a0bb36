//! How much may be on its way: the congestion window.

/// Which algorithm moves the congestion window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// RFC 5681 with RFC 6582.
    #[default]
    NewReno,
}

/// The algorithm that moves the congestion window, with its state.
#[derive(Clone, Copy, Debug)]
pub enum Congestion {
    /// RFC 5681 with RFC 6582 (NewReno) and RFC 3465 (byte counting).
    NewReno(NewReno),
}

/// Initial window, bytes (RFC 6928).
pub fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

impl Congestion {
    pub(super) fn new(algorithm: Algorithm, mss: u32) -> Self {
        match algorithm {
            Algorithm::NewReno => {
                Congestion::NewReno(NewReno { cwnd: initial_window(mss), ssthresh: u32::MAX, acked: 0 })
            }
        }
    }

    /// Congestion window, bytes.
    #[inline]
    pub fn cwnd(&self) -> u32 {
        match self {
            Congestion::NewReno(c) => c.cwnd,
        }
    }

    /// Slow start threshold, bytes; `u32::MAX` until the first loss.
    #[inline]
    pub fn ssthresh(&self) -> u32 {
        match self {
            Congestion::NewReno(c) => c.ssthresh,
        }
    }

    /// Whether the window doubles each round trip.
    #[inline]
    pub fn in_slow_start(&self) -> bool {
        self.cwnd() < self.ssthresh()
    }

    /// `acked` bytes were newly acknowledged, outside of fast recovery, while the window was what held the sender back.
    /// `after_rto`: what a timeout declared lost is still being repaired.
    #[inline]
    pub(super) fn on_ack(&mut self, acked: u64, mss: u32, after_rto: bool) {
        match self {
            Congestion::NewReno(c) => c.on_ack(acked, mss, after_rto),
        }
    }

    /// Fast recovery begins; `flight` bytes were on their way when the loss happened.
    pub(super) fn on_loss(&mut self, flight: u64, mss: u32) {
        match self {
            Congestion::NewReno(c) => {
                c.reduce(flight, mss);
                c.cwnd = c.ssthresh;
            }
        }
    }

    /// Fast recovery is over, all of it acknowledged; `flight` bytes are on their way.
    pub(super) fn on_recovered(&mut self, flight: u64, mss: u32) {
        match self {
            // RFC 6582 3.2 step 3, option 1: no burst when the flight has drained in the meantime.
            Congestion::NewReno(c) => c.cwnd = c.ssthresh.min(narrow(flight).max(mss).saturating_add(mss)),
        }
    }

    /// The retransmission timer expired with `flight` bytes on their way. `again`: for a loss that was answered before.
    pub(super) fn on_rto(&mut self, flight: u64, mss: u32, again: bool) {
        match self {
            Congestion::NewReno(c) => {
                // RFC 5681 3.1: one loss reduces ssthresh once, however often it takes to repair it.
                if !again {
                    c.reduce(flight, mss);
                }
                c.cwnd = mss;
            }
        }
    }

    /// Nothing was sent for longer than a retransmission timeout (RFC 5681 4.1).
    pub(super) fn after_idle(&mut self, mss: u32) {
        match self {
            Congestion::NewReno(c) => c.cwnd = c.cwnd.min(initial_window(mss)),
        }
    }

    /// The handshake's own segment was lost: start with one segment (RFC 5681 3.1).
    pub(super) fn after_lost_handshake(&mut self, mss: u32) {
        match self {
            Congestion::NewReno(c) => c.cwnd = mss,
        }
    }

    /// The segment size changed: the window never falls below one segment.
    pub(super) fn at_least(&mut self, mss: u32) {
        match self {
            Congestion::NewReno(c) => {
                c.cwnd = c.cwnd.max(mss);
                c.ssthresh = c.ssthresh.max(2 * mss);
            }
        }
    }
}

/// State of NewReno, bytes.
#[derive(Clone, Copy, Debug)]
pub struct NewReno {
    cwnd: u32,
    ssthresh: u32,
    /// Acknowledged in congestion avoidance and not yet turned into growth.
    acked: u32,
}

impl NewReno {
    fn on_ack(&mut self, acked: u64, mss: u32, after_rto: bool) {
        if self.cwnd < self.ssthresh {
            // RFC 3465 2.2, 2.3: L = 2, but 1 while a timeout is repaired. What crosses ssthresh is left out.
            let limit = if after_rto { mss } else { 2 * mss };
            self.cwnd = self.cwnd.saturating_add(narrow(acked).min(limit));
            return;
        }
        self.acked = self.acked.saturating_add(narrow(acked));
        if self.acked >= self.cwnd {
            self.acked -= self.cwnd;
            self.cwnd = self.cwnd.saturating_add(mss);
        }
    }

    fn reduce(&mut self, flight: u64, mss: u32) {
        self.ssthresh = narrow(flight / 2).max(2 * mss);
        self.acked = 0;
    }
}

fn narrow(bytes: u64) -> u32 {
    bytes.min(u64::from(u32::MAX)) as u32
}
