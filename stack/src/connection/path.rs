//! What is known of the way to the peer: how long a packet may be (RFC 1191, RFC 8201, RFC 4821), and what routers say of it
//! (RFC 1122 4.2.3.9, RFC 5461, RFC 5927).
//!
//! Nothing here is a reason to slow down, and nothing ends an established connection by itself: what an ICMP error says
//! may be forged, or over in a second.

use super::{Connection, Env, Fate, World};
use crate::limits::{BLACK_HOLE_MSS, BLACK_HOLE_STEPS, BLACK_HOLE_TIMEOUTS, HOPELESS_RTO_US, MIN_MSS, PMTU_LIFE_US};
use crate::pmtu::{self, MTU_MIN_V6, PathMtu};
use crate::wire::{IcmpError, Trouble};
use crate::{FlowKey, Instant, Queue};

/// What one connection knows of its path.
pub(super) struct Path {
    /// Largest segment that the peer takes, bytes of payload and options.
    peer_mss: u16,
    /// Options in every segment, bytes.
    options: u16,
    /// Largest IP packet, bytes.
    mtu: u16,
    /// When a larger one is tried; `FAR_FUTURE`: the link itself carries no more.
    retry_at: Instant,
    /// A router or the peer's host has complained about a segment of ours.
    trouble: bool,
    /// The segments were made smaller on suspicion, and nothing was acknowledged since.
    unproven: bool,
    /// Packets of this size got through where longer ones did not; 0: that never happened.
    proven: u16,
    /// Timeouts in a row with the same octet missing, and which octet that is.
    timeouts: u8,
    stuck_at: u64,
    /// Steps down since then, and the size before the first of them.
    steps: u8,
    before: u16,
}

impl Path {
    /// The path of a connection that begins, and the largest segment on it, bytes of payload.
    pub(super) fn new(now: Instant, world: &World, key: &FlowKey, peer_mss: u16, options: u16) -> (Path, u16) {
        let mut path = Path {
            peer_mss,
            options,
            mtu: 0,
            retry_at: Instant::FAR_FUTURE,
            trouble: false,
            unproven: false,
            proven: 0,
            timeouts: 0,
            stuck_at: 0,
            steps: 0,
            before: 0,
        };
        path.take(world.path_mtu(now, key));
        let mss = path.mss(key);
        (path, mss)
    }

    /// The packet to try where segments of `mss` bytes vanish, bytes: an IPv6 path carries 1280 or is none, over IPv4 it is
    /// 1024 bytes of text, then half of it, and so on.
    fn smaller(&self, mss: u16, key: &FlowKey) -> u16 {
        if !key.is_v4() {
            return MTU_MIN_V6;
        }
        let mss = if mss > BLACK_HOLE_MSS { BLACK_HOLE_MSS } else { (mss / 2).max(MIN_MSS) };
        headers(key) + self.options + mss
    }

    fn take(&mut self, path: PathMtu) {
        (self.mtu, self.retry_at) = (path.mtu, path.expires);
    }

    /// Largest payload of a segment, bytes.
    fn mss(&self, key: &FlowKey) -> u16 {
        self.peer_mss.min(mss_of(self.mtu, key)).saturating_sub(self.options).max(1)
    }

    /// Largest segment that the peer takes, bytes of payload and options.
    pub(super) fn peer_mss(&self) -> u16 {
        self.peer_mss
    }

    /// Whether it is time to try a larger packet.
    #[inline(always)]
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now >= self.retry_at
    }

    /// Whether smaller segments wait for their first acknowledgement.
    #[inline(always)]
    pub(super) fn is_unproven(&self) -> bool {
        self.unproven
    }
}

impl World {
    /// Largest IP packet towards the peer of `key`, bytes: what is remembered, at most what the link carries.
    fn path_mtu(&self, now: Instant, key: &FlowKey) -> PathMtu {
        let link = self.caps.mtu.min(usize::from(u16::MAX)) as u16;
        match self.pmtu.find(now, &key.peer) {
            Some(path) if path.mtu < link => path,
            _ => PathMtu { mtu: link, expires: Instant::FAR_FUTURE },
        }
    }
}

impl<S> Connection<S> {
    /// An ICMP error quotes this flow.
    #[cold]
    pub(crate) fn on_icmp<Q: Queue>(&mut self, env: &mut Env<'_, Q>, error: &IcmpError) -> Fate {
        let sender = &self.tx.sender;
        let beyond_una = error.seq.wrapping_sub(self.tx.seq(sender.una()));
        if u64::from(beyond_una) >= sender.in_flight() {
            env.world.counters.icmp_outside += 1;
            return Fate::Live;
        }
        match error.trouble {
            Trouble::TooBig { mtu, quoted_len } => self.on_too_big(env, mtu, quoted_len),
            Trouble::Unreachable | Trouble::Refused => {
                env.world.counters.icmp_soft += 1;
                self.path.trouble = true;
            }
        }
        Fate::Live
    }

    fn on_too_big<Q: Queue>(&mut self, env: &mut Env<'_, Q>, claimed: u32, quoted_len: u32) {
        let quoted_len = quoted_len.min(u32::from(self.path.mtu));
        let mtu = pmtu::believable(self.key.is_v4(), claimed, quoted_len);
        let Some(mtu) = mtu.filter(|&mtu| mtu < self.path.mtu) else {
            env.world.counters.pmtu_ignored += 1;
            return;
        };
        env.world.counters.pmtu_lowered += 1;
        let path = env.world.pmtu.learn(env.now, &self.key.peer, mtu);
        self.path.take(path);
        (self.path.unproven, self.path.timeouts) = (false, 0);
        let mss = self.path.mss(&self.key);
        if mss < self.tx.mss {
            self.tx.mss = mss;
            // What was too long is lost, and that is no sign of congestion.
            self.tx.sender.path_shrank(env.now, usize::from(mss));
        }
    }

    /// The retransmission timer has expired: perhaps because segments of this size vanish on the way and nobody says so.
    #[cold]
    pub(super) fn on_lost<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        let (una, in_flight) = (self.tx.sender.una(), self.tx.sender.in_flight());
        let path = &mut self.path;
        if path.stuck_at != una || path.timeouts == 0 {
            (path.stuck_at, path.timeouts, path.steps) = (una, 0, 0);
        }
        path.timeouts = path.timeouts.saturating_add(1);
        let proven = path.proven != 0 && path.proven < path.mtu;
        let patience = if proven { 1 } else { BLACK_HOLE_TIMEOUTS };
        if path.timeouts < patience || path.steps > BLACK_HOLE_STEPS {
            return;
        }
        if path.steps == 0 {
            path.before = path.mtu;
        }
        if path.steps == BLACK_HOLE_STEPS {
            // Not even short segments are answered: the peer is away, and will want full ones when it is back.
            path.steps += 1;
            path.unproven = false;
            let back = PathMtu { mtu: path.before, expires: path.retry_at };
            return self.set_path_mtu(back);
        }
        let mtu = if proven { path.proven } else { path.smaller(self.tx.mss, &self.key) };
        let mss = mss_of(mtu, &self.key).saturating_sub(path.options);
        if mss >= self.tx.mss || in_flight <= u64::from(mss) {
            return;
        }
        path.steps += 1;
        path.unproven = true;
        env.world.counters.pmtu_black_holes += 1;
        self.set_path_mtu(PathMtu { mtu, expires: env.now.plus_micros(PMTU_LIFE_US) });
    }

    /// Smaller segments were answered: it was the size, and others on this path need not find out by themselves.
    #[cold]
    pub(super) fn on_proven<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        self.path.unproven = false;
        self.path.proven = self.path.mtu;
        let path = env.world.pmtu.learn(env.now, &self.key.peer, self.path.mtu);
        self.path.take(path);
    }

    /// What was known of the path is old: tries what is known now, or the link's own size.
    #[cold]
    pub(super) fn renew_path<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        let path = env.world.path_mtu(env.now, &self.key);
        env.world.counters.pmtu_raised += u64::from(path.mtu > self.path.mtu);
        self.set_path_mtu(path);
    }

    /// The link now carries packets of another size. What is in flight has left, whatever its size.
    pub(crate) fn on_link_mtu(&mut self, now: Instant, world: &World) {
        let link = world.path_mtu(now, &self.key);
        if link.mtu < self.path.mtu || self.path.retry_at == Instant::FAR_FUTURE {
            self.set_path_mtu(link);
        }
    }

    /// Whether a peer that does not answer has been given up by others, too: routers complain, the application has said all
    /// it had to say, and the timer has grown long (Linux gives such an orphan up at once).
    pub(super) fn is_hopeless(&self) -> bool {
        self.path.trouble && self.tx.shutdown && self.tx.sender.rto_us() >= HOPELESS_RTO_US
    }

    fn set_path_mtu(&mut self, path: PathMtu) {
        self.path.take(path);
        let mss = self.path.mss(&self.key);
        if mss != self.tx.mss {
            self.tx.mss = mss;
            self.tx.sender.set_mss(usize::from(mss));
        }
    }
}

/// Largest TCP payload without options of a packet of `mtu` bytes.
pub(super) fn mss_of(mtu: u16, key: &FlowKey) -> u16 {
    mtu.saturating_sub(headers(key)).max(1)
}

/// IP and TCP headers without options, bytes.
fn headers(key: &FlowKey) -> u16 {
    if key.is_v4() { 40 } else { 60 }
}
