//! The ladder: which rungs are tried, in which order, and why each higher one was refused.
//!
//! Nothing here touches the system: a [`Prober`] does the trying, so that the order and the rules are tested as data.

use crate::cli::{Backend, XdpCopy, XdpMode, option_name};
use crate::rung::Rung;
use std::fmt;

/// What the command line says about the choice of a rung.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Request {
    pub(crate) backend: Backend,
    pub(crate) require: Option<Rung>,
    /// Whether an interface is named.
    pub(crate) interface: bool,
    /// Whether khamsin has addresses of its own there (otherwise it shares the interface's).
    pub(crate) own_address: bool,
    pub(crate) xdp_mode: XdpMode,
    pub(crate) xdp_copy: XdpCopy,
    /// Whether frames are to be captured.
    pub(crate) captures: bool,
}

/// Opens what a rung needs, or says in a sentence why it cannot.
pub(crate) trait Prober {
    /// What an opened rung is.
    type Taken;

    /// Tries one rung. What a failed attempt opened is closed again when this returns.
    fn attempt(&mut self, rung: Rung) -> Result<Self::Taken, String>;
}

/// A rung that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) rung: Rung,
    pub(crate) reason: String,
    /// Whether it was tried; false: the command line rules it out.
    pub(crate) tried: bool,
}

/// The rungs that were refused on the way down, highest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ladder {
    pub(crate) refused: Vec<Refusal>,
}

impl Request {
    /// Why the command line rules `rung` out, if it does.
    pub(crate) fn excludes(&self, rung: Rung) -> Option<String> {
        let xdp = matches!(rung, Rung::AfXdpZeroCopy | Rung::AfXdpNative | Rung::AfXdpGeneric);
        if self.backend != Backend::Auto && self.backend != backend_of(rung) {
            return Some(format!("excluded by --backend {}", option_name(&self.backend)));
        }
        if (xdp || rung == Rung::AfPacket) && !self.interface {
            return Some("needs an interface to serve on: --interface IF".into());
        }
        if rung == Rung::Tap && self.backend == Backend::Auto && self.interface {
            return Some("makes an interface of its own, but --interface names one".into());
        }
        if rung == Rung::AfPacket && !self.own_address {
            return Some(
                "needs --address IP/LEN: the kernel answers on its own addresses too and would reset ours".into(),
            );
        }
        let mode = match rung {
            Rung::AfXdpZeroCopy | Rung::AfXdpNative => self.xdp_mode == XdpMode::Generic,
            Rung::AfXdpGeneric => self.xdp_mode == XdpMode::Native,
            _ => false,
        };
        if mode {
            return Some(format!("excluded by --xdp-mode {}", option_name(&self.xdp_mode)));
        }
        let copy = match rung {
            Rung::AfXdpZeroCopy => self.xdp_copy == XdpCopy::Copy,
            Rung::AfXdpNative | Rung::AfXdpGeneric => self.xdp_copy == XdpCopy::ZeroCopy,
            _ => false,
        };
        if copy {
            return Some(format!("excluded by --xdp-copy {}", option_name(&self.xdp_copy)));
        }
        if rung == Rung::Epoll && self.captures {
            return Some("sees no frames, which --capture wants".into());
        }
        let require = self.require.filter(|&require| rung > require)?;
        Some(format!("below --require {require}"))
    }

    /// Whether any rung is left to try.
    pub(crate) fn is_possible(&self) -> bool {
        Rung::ALL.iter().any(|&rung| self.excludes(rung).is_none())
    }
}

/// The backend that a rung belongs to.
pub(crate) const fn backend_of(rung: Rung) -> Backend {
    match rung {
        Rung::AfXdpZeroCopy | Rung::AfXdpNative | Rung::AfXdpGeneric => Backend::AfXdp,
        Rung::AfPacket => Backend::AfPacket,
        Rung::Tap => Backend::Tap,
        Rung::Epoll => Backend::Epoll,
    }
}

/// Climbs down from the highest rung until one can be taken. `None`: none could, and the ladder says why.
pub(crate) fn climb<P: Prober>(request: &Request, prober: &mut P) -> (Ladder, Option<(Rung, P::Taken)>) {
    let mut ladder = Ladder::default();
    for rung in Rung::ALL {
        let (reason, tried) = match request.excludes(rung) {
            Some(reason) => (reason, false),
            None => match prober.attempt(rung) {
                Ok(taken) => return (ladder, Some((rung, taken))),
                Err(reason) => (reason, true),
            },
        };
        ladder.refused.push(Refusal { rung, reason, tried });
    }
    (ladder, None)
}

impl Ladder {
    /// The rungs that were tried, those with the same reason together: names and reason.
    pub(crate) fn tried(&self) -> Vec<(String, &str)> {
        let mut told: Vec<(String, &str)> = Vec::new();
        for r in self.refused.iter().filter(|r| r.tried) {
            match told.last_mut() {
                Some((names, reason)) if *reason == r.reason => *names = format!("{names}, {}", r.rung),
                _ => told.push((r.rung.to_string(), &r.reason)),
            }
        }
        told
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> = self.tried().iter().map(|(names, reason)| format!("{names}: {reason}")).collect();
        f.write_str(&told.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which the listed rungs work; it notes what was tried.
    struct Machine {
        works: Vec<Rung>,
        attempts: Vec<Rung>,
    }

    impl Prober for Machine {
        type Taken = Rung;

        fn attempt(&mut self, rung: Rung) -> Result<Rung, String> {
            self.attempts.push(rung);
            if self.works.contains(&rung) { Ok(rung) } else { Err(format!("{rung} is broken")) }
        }
    }

    fn climb_on(works: &[Rung], request: Request) -> (Vec<Rung>, Option<Rung>, Ladder) {
        let mut machine = Machine { works: works.to_vec(), attempts: Vec::new() };
        let (ladder, taken) = climb(&request, &mut machine);
        (machine.attempts, taken.map(|(rung, _)| rung), ladder)
    }

    fn on_interface() -> Request {
        Request { interface: true, own_address: true, ..Request::default() }
    }

    #[test]
    fn auto_on_an_interface_tries_each_rung_in_order_and_tells_why() {
        let (attempts, taken, ladder) = climb_on(&[Rung::AfPacket, Rung::Epoll], on_interface());
        assert_eq!(attempts, [Rung::AfXdpZeroCopy, Rung::AfXdpNative, Rung::AfXdpGeneric, Rung::AfPacket]);
        assert_eq!(taken, Some(Rung::AfPacket));
        assert!(ladder.refused.iter().all(|r| r.tried && r.reason == format!("{} is broken", r.rung)));
    }

    #[test]
    fn auto_without_an_interface_is_tap_then_epoll() {
        let (attempts, taken, ladder) = climb_on(&[Rung::Epoll], Request::default());
        assert_eq!((attempts, taken), (vec![Rung::Tap, Rung::Epoll], Some(Rung::Epoll)));
        assert_eq!(ladder.refused.len(), 5, "every higher rung has its reason");
        assert_eq!(ladder.to_string(), "tap: tap is broken");
    }

    #[test]
    fn a_reason_that_several_rungs_share_is_told_once() {
        let refusal = |rung, reason: &str| Refusal { rung, reason: reason.into(), tried: true };
        let refused = vec![
            refusal(Rung::AfXdpZeroCopy, "no right"),
            refusal(Rung::AfXdpNative, "no right"),
            refusal(Rung::AfPacket, "no ring"),
        ];
        let ladder = Ladder { refused };
        assert_eq!(ladder.to_string(), "af-xdp-zero-copy, af-xdp-native: no right; af-packet: no ring");
    }

    #[test]
    fn a_shared_address_skips_packet_sockets_and_tap() {
        let request = Request { own_address: false, ..on_interface() };
        let (attempts, taken, _) = climb_on(&[Rung::Epoll], request);
        assert_eq!(attempts, [Rung::AfXdpZeroCopy, Rung::AfXdpNative, Rung::AfXdpGeneric, Rung::Epoll]);
        assert_eq!(taken, Some(Rung::Epoll));
    }

    #[test]
    fn a_named_backend_never_climbs_further_down() {
        for (backend, own) in [
            (Backend::AfXdp, &[Rung::AfXdpZeroCopy, Rung::AfXdpNative, Rung::AfXdpGeneric][..]),
            (Backend::AfPacket, &[Rung::AfPacket]),
            (Backend::Tap, &[Rung::Tap]),
            (Backend::Epoll, &[Rung::Epoll]),
        ] {
            let (attempts, taken, ladder) = climb_on(&[], Request { backend, ..on_interface() });
            assert_eq!((&attempts[..], taken), (own, None), "{backend:?}");
            assert_eq!(ladder.refused.iter().filter(|r| r.tried).count(), own.len());
        }
    }

    #[test]
    fn modes_and_copies_restrict_xdp_only() {
        let mode = |xdp_mode, xdp_copy| climb_on(&[], Request { xdp_mode, xdp_copy, ..on_interface() }).0;
        let rest = [Rung::AfPacket, Rung::Epoll];
        assert_eq!(mode(XdpMode::Generic, XdpCopy::Auto), [&[Rung::AfXdpGeneric], &rest[..]].concat());
        assert_eq!(mode(XdpMode::Native, XdpCopy::Copy), [&[Rung::AfXdpNative], &rest[..]].concat());
        assert_eq!(mode(XdpMode::Auto, XdpCopy::ZeroCopy), [&[Rung::AfXdpZeroCopy], &rest[..]].concat());
        assert_eq!(mode(XdpMode::Generic, XdpCopy::ZeroCopy), rest);
    }

    #[test]
    fn nothing_below_the_required_rung_is_tried() {
        let request = Request { require: Some(Rung::AfXdpNative), ..on_interface() };
        let (attempts, taken, ladder) = climb_on(&[Rung::AfXdpGeneric, Rung::Epoll], request);
        assert_eq!((attempts, taken), (vec![Rung::AfXdpZeroCopy, Rung::AfXdpNative], None));
        assert_eq!(ladder.refused[2].reason, "below --require af-xdp-native");
        assert!(request.is_possible());
        let never = Request { require: Some(Rung::AfPacket), backend: Backend::Tap, ..Request::default() };
        assert!(!never.is_possible());
    }
}
