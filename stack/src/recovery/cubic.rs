//! CUBIC (RFC 9438) in integers: bytes, milliseconds and cubic roots.

use crate::Instant;

/// State of congestion avoidance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cubic {
    /// When the current congestion avoidance began; `None` before it has.
    epoch: Option<Instant>,
    /// When the window grew last.
    grown_at: Instant,
    /// What Reno would have by now (W_est), bytes, in 1024ths.
    friendly: u64,
    /// Window at the last reduction (W_max), bytes, lowered by fast convergence.
    w_max: u32,
    /// Window at the last reduction as it was (cwnd_prior), bytes.
    prior: u32,
    /// Time from the epoch until the curve is back at `w_max`, milliseconds.
    k_ms: u32,
    /// Growth below one byte, in parts of the window.
    rest: u32,
}

/// Fixed point of `friendly`.
const SHIFT: u32 = 10;
/// Further than this from K the curve is out of every bound that is put on it, milliseconds.
const FAR_MS: u64 = 100_000;

impl Cubic {
    /// Congestion: returns the new slow start threshold (beta = 0.7, RFC 9438 4.6).
    pub(super) fn reduce(&mut self, cwnd: u32) -> u32 {
        // 4.7, fast convergence: who gives way for a newcomer gives way further.
        let less = u64::from(cwnd) * 17 / 20;
        self.w_max = if cwnd < self.w_max { less as u32 } else { cwnd };
        self.prior = cwnd;
        self.epoch = None;
        (u64::from(cwnd) * 7 / 10) as u32
    }

    /// After a timeout the curve starts where slow start ends (4.8).
    pub(super) fn forget(&mut self) {
        self.w_max = 0;
        self.epoch = None;
    }

    /// `acked` bytes were delivered in congestion avoidance while the window was used; returns the new window.
    pub(super) fn grow(&mut self, now: Instant, cwnd: u32, acked: u32, mss: u32, srtt_us: u32) -> u32 {
        let (window, acked, srtt) = (u64::from(cwnd), u64::from(acked), u64::from(srtt_us));
        let epoch = match self.epoch {
            Some(epoch) => {
                // 4.2: time in which the application held back is no time in which the window could have grown.
                let gap = now.micros_since(self.grown_at).saturating_sub(2 * srtt);
                epoch.plus_micros(gap)
            }
            None => self.begin(now, cwnd, mss),
        };
        self.epoch = Some(epoch);
        self.grown_at = now;
        // 4.3: alpha is 3 (1 - beta) / (1 + beta) = 9/17 until the prior window is reached, then 1.
        let step = ((acked * u64::from(mss)) << SHIFT) / window;
        let caught_up = self.friendly >> SHIFT >= u64::from(self.prior);
        self.friendly += if caught_up { step } else { step * 9 / 17 };
        let friendly = self.friendly >> SHIFT;
        let elapsed = now.micros_since(epoch);
        if self.curve(elapsed, mss) < friendly {
            return window.max(friendly).min(1 << 30) as u32;
        }
        let target = self.curve(elapsed + srtt, mss).clamp(window, window + window / 2);
        let sum = (target - window) * acked + u64::from(self.rest);
        self.rest = (sum % window) as u32;
        (window + sum / window) as u32
    }

    /// Congestion avoidance begins with a window of `cwnd`.
    fn begin(&mut self, now: Instant, cwnd: u32, mss: u32) -> Instant {
        let below = u64::from(self.w_max.saturating_sub(cwnd));
        if below == 0 {
            self.w_max = cwnd;
        }
        // K = cbrt((W_max - cwnd_epoch) / C), C = 0.4 segments/s^3; 10^9 / 0.4 turns it into milliseconds.
        self.k_ms = cube_root(below * 2_500_000_000 / u64::from(mss));
        self.friendly = u64::from(cwnd) << SHIFT;
        self.rest = 0;
        now
    }

    /// W_cubic (RFC 9438 4.2), bytes: C (t - K)^3 + W_max.
    fn curve(&self, elapsed_us: u64, mss: u32) -> u64 {
        let (t_ms, k_ms) = (elapsed_us / 1000, u64::from(self.k_ms));
        let d = t_ms.abs_diff(k_ms).min(FAR_MS);
        let bytes = d * d * d / 1000 * u64::from(mss) / 2_500_000;
        let w_max = u64::from(self.w_max);
        if t_ms < k_ms { w_max.saturating_sub(bytes) } else { w_max + bytes }
    }
}

/// The integer part of the cubic root.
fn cube_root(x: u64) -> u32 {
    let mut root = 0u64;
    for bit in (0..22).rev() {
        let larger = root | 1 << bit;
        if larger.checked_pow(3).is_some_and(|cube| cube <= x) {
            root = larger;
        }
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cube_roots_are_exact() {
        for x in [0, 1, 7, 8, 26, 27, 63, 64, 999, 1000, 1 << 60, (1 << 60) - 1, u64::MAX] {
            let root = u128::from(cube_root(x));
            assert!(root.pow(3) <= u128::from(x) && (root + 1).pow(3) > u128::from(x), "{x}");
        }
    }

    /// RFC 9438 4.2: K for a window of 1000 segments cut to 700 is cbrt(300 / 0.4) = 9.086 s.
    #[test]
    fn the_curve_comes_back_to_w_max_after_k() {
        let mut cubic = Cubic::default();
        let now = Instant::from_millis(5);
        assert_eq!(cubic.reduce(1_000_000), 700_000);
        cubic.grow(now, 700_000, 1000, 1000, 20_000);
        assert_eq!(cubic.k_ms, 9085);
        // (t, W_cubic): W(0) = 700, W(K) = 1000, concave below, convex above.
        for (t_ms, segments) in [(0, 700), (4543, 962), (9086, 1000), (13_629, 1037), (18_172, 1300)] {
            let window = cubic.curve(t_ms * 1000, 1000);
            assert!(window.abs_diff(segments * 1000) < 1000, "after {t_ms} ms: {window}");
        }
    }

    /// RFC 9438 4.7.
    #[test]
    fn fast_convergence_lowers_the_plateau_of_a_shrinking_flow() {
        let mut cubic = Cubic::default();
        cubic.reduce(1_000_000);
        assert_eq!(cubic.w_max, 1_000_000);
        cubic.reduce(800_000);
        assert_eq!(cubic.w_max, 680_000);
        cubic.reduce(900_000);
        assert_eq!(cubic.w_max, 900_000);
    }

    /// RFC 9438 4.3: with a short round trip the curve is slower than Reno, and Reno's window is taken: alpha segments
    /// for each window of data below the prior window.
    #[test]
    fn in_the_friendly_region_it_grows_like_reno() {
        let mut cubic = Cubic::default();
        let mut cwnd = cubic.reduce(100_000);
        let mut now = Instant::from_millis(1);
        for _ in 0..34 {
            now = now.plus_micros(1000);
            for _ in 0..cwnd / 1000 {
                cwnd = cubic.grow(now, cwnd, 1000, 1000, 1000);
            }
        }
        assert!((87_000..=88_500).contains(&cwnd), "34 rounds of 9/17 segments above 70: {cwnd}");
    }

    /// RFC 9438 4.2: an application that paused does not find a window grown by the clock.
    #[test]
    fn a_pause_does_not_age_the_curve() {
        let mut cubic = Cubic::default();
        let cwnd = cubic.reduce(1_000_000);
        cubic.grow(Instant::from_millis(0), cwnd, 1000, 1000, 20_000);
        let now = Instant::from_millis(600_000);
        let grown = cubic.grow(now, cwnd, 1000, 1000, 20_000);
        assert!(grown < cwnd + 200, "{grown}");
    }

    #[test]
    fn nothing_overflows() {
        for (cwnd, acked, mss, srtt) in [(1, 1 << 30, 65_535, 60_000_000), (1 << 30, 1 << 30, 65_535, 1), (1, 1, 1, 1)]
        {
            let mut cubic = Cubic::default();
            cubic.reduce(1 << 30);
            for s in [0, 1, 1000, 1 << 30] {
                let grown = cubic.grow(Instant::from_millis(s * 1000), cwnd, acked, mss, srtt);
                assert!(grown >= cwnd);
            }
        }
    }
}
