//! The rungs that carry frames: opens their queues and puts a stack of our own on each.

use crate::cli::Congestion;
use crate::engine::OwnStack;
use crate::open::{Opener, interface_addresses};
use crate::server::{Crew, Maker, Running};
use khamsin_drivers::af_packet;
use khamsin_drivers::af_xdp::{self, CopyMode, Mode, Steering};
use khamsin_drivers::capture::Tapped;
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::group::Group;
use khamsin_drivers::{link, tap};
use khamsin_stack::limits::Limits;
use khamsin_stack::recovery::Algorithm;
use khamsin_stack::{Addresses, Queue, ShardConfig, stray};
use rustix::rand::{GetRandomFlags, getrandom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

/// The TAP device that khamsin makes when no name is given.
const TAP_NAME: &str = "khamsin0";
/// khamsin's addresses there when none are given; the kernel has the first ones of the same prefixes.
const TAP_ADDRESSES: [(IpAddr, u8); 2] =
    [(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)), 24), (IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)), 64)];

impl Opener<'_> {
    /// AF_XDP on every receive queue of the interface.
    pub(crate) fn xdp(&self, mode: Mode, copy: CopyMode) -> Result<Running, String> {
        let interface = self.network().interface.clone().unwrap_or_default();
        let own = self.own_addresses()?;
        let shared = own.is_empty();
        let steering = if shared {
            Steering::Shared { ports: self.listeners(false).iter().map(|l| l.port).collect() }
        } else {
            Steering::Own { addresses: own.iter().map(|(address, _)| *address).collect() }
        };
        if shared && link::forwards_ipv4(&interface) {
            tracing::warn!(
                "this host forwards packets that come in on {interface}: those to our ports are taken, wherever they are \
                 going; use --address, or `sysctl -w net.ipv4.conf.{interface}.forwarding=0`"
            );
        }
        let addresses = if shared { interface_addresses(&interface)? } else { just_addresses(&own) };
        let config = af_xdp::Config { interface: interface.clone(), mode, copy, steering, ..Default::default() };
        let (queues, attachment) = af_xdp::open(&config).map_err(|e| e.to_string())?;
        let workers = self.bells.len().min(queues.len());
        if workers < self.bells.len() {
            tracing::warn!(
                "{interface} has {workers} receive queue(s), so {workers} of {} workers serve; `ethtool -L {interface}` \
                 can make more queues",
                self.bells.len()
            );
        }
        let how = if shared { Addresses::Shared } else { Addresses::Own(own) };
        let crew = if queues.len() == workers {
            let rung = |(mut queue, bell): (af_xdp::XdpQueue, &Doorbell)| {
                queue.set_doorbell(bell.clone());
                queue
            };
            self.stacks(&interface, queues.into_iter().zip(&self.bells).map(rung).collect(), &how)?
        } else {
            self.stacks(&interface, self.grouped(queues, workers), &how)?
        };
        Ok(Running { interface: Some(interface), keeps: Some(attachment), ..self.running(addresses, false, crew) })
    }

    /// A ring of packet sockets for each worker.
    pub(crate) fn packet(&self) -> Result<Running, String> {
        let interface = self.network().interface.clone().unwrap_or_default();
        let own = self.own_addresses()?;
        let addresses = just_addresses(&own);
        let config = af_packet::Config::new(interface.clone(), addresses.clone());
        let mut queues = af_packet::open(&config, self.bells.len()).map_err(|e| e.to_string())?;
        for (queue, bell) in queues.iter_mut().zip(&self.bells) {
            queue.set_doorbell(bell.clone());
        }
        let crew = self.stacks(&interface, queues, &Addresses::Own(own))?;
        Ok(Running { interface: Some(interface), ..self.running(addresses, false, crew) })
    }

    /// A TAP device with a queue for each worker.
    pub(crate) fn tap(&self) -> Result<Running, String> {
        let name = self.network().interface.clone().unwrap_or_else(|| TAP_NAME.into());
        let mut own = self.own_addresses()?;
        if own.is_empty() {
            own = TAP_ADDRESSES.into();
        }
        let addresses = just_addresses(&own);
        let host = own.iter().filter_map(|&(address, len)| Some((host_address(address, len)?, len))).collect();
        let config = tap::Config { name: name.clone(), host, queues: self.bells.len() };
        let mut queues = tap::open(&config).map_err(|e| e.to_string())?;
        for (queue, bell) in queues.iter_mut().zip(&self.bells) {
            queue.set_doorbell(bell.clone());
        }
        let crew = self.stacks(&name, queues, &Addresses::Own(own))?;
        Ok(Running { interface: Some(name), ..self.running(addresses, false, crew) })
    }

    /// khamsin's own addresses. The kernel must not have them too: both would answer.
    fn own_addresses(&self) -> Result<Vec<(IpAddr, u8)>, String> {
        for own in &self.network().addresses {
            if let Some(owner) = link::kernel_owner(own.address).map_err(|e| e.to_string())? {
                return Err(format!(
                    "the kernel has {} on {owner} itself; name an address that it does not have, or none to share its own",
                    own.address
                ));
            }
        }
        Ok(self.network().addresses.iter().map(|a| (a.address, a.len)).collect())
    }

    /// Deals the queues out to `workers` groups.
    fn grouped<Q: Queue + AsFd>(&self, queues: Vec<Q>, workers: usize) -> Vec<Group<Q>> {
        let mut hands: Vec<Vec<Q>> = (0..workers).map(|_| Vec::new()).collect();
        for (i, queue) in queues.into_iter().enumerate() {
            hands[i % workers].push(queue);
        }
        let group = |(hand, bell): (Vec<Q>, &Doorbell)| {
            let mut group = Group::new(hand)?;
            group.set_doorbell(bell.clone());
            Some(group)
        };
        hands.into_iter().zip(&self.bells).filter_map(group).collect()
    }

    /// Starts one worker with a stack of its own for each queue of `interface`.
    fn stacks<Q>(&self, interface: &str, queues: Vec<Q>, addresses: &Addresses) -> Result<Crew, String>
    where
        Q: Queue + Send + 'static,
    {
        let shards = queues.len();
        let workers: Vec<_> = (0..shards).map(|i| format!("worker {i}")).collect();
        let capture = self.capture.as_ref().map(|target| target.start(interface, &workers)).transpose();
        let (capture, taps) = capture.map_err(|e| e.to_string())?.unzip();
        let mut taps = taps.into_iter().flatten();
        let queues: Vec<_> = queues.into_iter().map(|queue| Tapped::new(queue, taps.next())).collect();
        let mut secret = [0; 32];
        // 32 bytes come whole (getrandom(2): up to 256 are never cut short once the pool is ready).
        getrandom(&mut secret, GetRandomFlags::empty()).map_err(|e| format!("the kernel gave no random bytes: {e}"))?;
        let bells = self.bells.clone();
        let links = stray::links(shards, move |shard: usize| bells.iter().skip(shard).take(1).for_each(Doorbell::ring));
        let algorithm = match self.network().congestion.unwrap_or_default() {
            Congestion::Cubic => Algorithm::Cubic,
            Congestion::NewReno => Algorithm::NewReno,
        };
        let shares = shards.max(1);
        let limits = Limits {
            per_source: self.network().per_source.div_ceil(shares),
            ..Limits::with_parking(self.network().connections.div_ceil(shares))
        };
        let makers = queues.into_iter().zip(links).map(|(queue, link)| {
            let config = ShardConfig {
                listeners: self.listeners(false),
                addresses: addresses.clone(),
                gateways: self.network().gateways.clone(),
                limits,
                secret,
                strays: (shards > 1).then_some(link),
            };
            let recipe = self.recipe.clone();
            Box::new(move || Ok(OwnStack::new(config, algorithm, queue, recipe.apps()))) as Maker<OwnStack<Q>>
        });
        let mut crew = self.crew(makers.collect())?;
        crew.capture = capture;
        Ok(crew)
    }
}

fn just_addresses(own: &[(IpAddr, u8)]) -> Vec<IpAddr> {
    own.iter().map(|(address, _)| *address).collect()
}

/// The kernel's address beside ours on a TAP: the first host of the prefix, or the second where we are the first. `None`
/// where the prefix has no room for two.
fn host_address(ours: IpAddr, len: u8) -> Option<IpAddr> {
    match ours {
        IpAddr::V4(v4) if len < 31 => {
            let network = u32::from(v4) & !(u32::MAX >> len);
            let host = if u32::from(v4) == network + 1 { network + 2 } else { network + 1 };
            Some(Ipv4Addr::from(host).into())
        }
        IpAddr::V6(v6) if len < 127 => {
            let network = u128::from(v6) & !(u128::MAX >> len);
            let host = if u128::from(v6) == network + 1 { network + 2 } else { network + 1 };
            Some(Ipv6Addr::from(host).into())
        }
        // RFC 3021 and RFC 6164: a link of two.
        IpAddr::V4(v4) if len == 31 => Some(Ipv4Addr::from(u32::from(v4) ^ 1).into()),
        IpAddr::V6(v6) if len == 127 => Some(Ipv6Addr::from(u128::from(v6) ^ 1).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_other_one_of_the_prefix() {
        for (ours, len, host) in [
            ("198.18.0.2", 24, Some("198.18.0.1")),
            ("198.18.0.1", 24, Some("198.18.0.2")),
            ("198.18.0.77", 26, Some("198.18.0.65")),
            ("198.18.0.4", 31, Some("198.18.0.5")),
            ("198.18.0.4", 32, None),
            ("198.18.0.4", 0, Some("0.0.0.1")),
            ("fd00::2", 64, Some("fd00::1")),
            ("fd00::1", 64, Some("fd00::2")),
            ("fd00::2", 127, Some("fd00::3")),
            ("fd00::2", 128, None),
        ] {
            assert_eq!(host_address(ours.parse().unwrap(), len), host.map(|h| h.parse().unwrap()), "{ours}/{len}");
        }
    }
}
