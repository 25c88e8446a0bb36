//! Tries rungs for real: opens devices and starts workers on them, or says why not.

use crate::apps::Recipe;
use crate::capture::CaptureTo;
use crate::cli::{AddressPrefix, Congestion, Trigger};
use crate::engine::KernelSockets;
use crate::ladder::Prober;
use crate::options::{Network, Options};
use crate::privileges;
use crate::rung::Rung;
use crate::server::{Crew, Event, Maker, Running};
use anyhow::{Context, Result};
use khamsin_drivers::af_xdp::{CopyMode, Mode};
use khamsin_drivers::capture::Target;
use khamsin_drivers::doorbell::Doorbell;
use khamsin_drivers::{epoll, link};
use khamsin_stack::Listener;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::Sender;

/// Descriptors of a server that are not connections: listeners, epoll instances, eventfds, the log.
const DESCRIPTORS_SPARE: u64 = 64;

/// Opens rungs for one server.
pub(crate) struct Opener<'a> {
    options: &'a Options,
    pub(crate) recipe: &'a Recipe,
    events: &'a Sender<Event>,
    cores: Vec<usize>,
    /// One for each worker.
    pub(crate) bells: Vec<Doorbell>,
    /// Where frames are captured.
    pub(crate) capture: Option<Target>,
}

impl<'a> Opener<'a> {
    /// Looks at what every rung needs to know.
    ///
    /// # Errors
    /// There is no such interface, the process has no descriptors, or the capture cannot be written.
    pub(crate) fn new(options: &'a Options, recipe: &'a Recipe, events: &'a Sender<Event>) -> Result<Self> {
        if let Some(interface) = options.network.interface.as_deref().filter(|_| !options.network.makes_interface()) {
            link::by_name(interface).with_context(|| format!("wanted to serve on {interface}"))?;
        }
        let bells = (0..options.network.workers).map(|_| Doorbell::new()).collect::<Result<_, _>>();
        let bells = bells.context("wanted a doorbell for each worker, but no descriptor is left; raise `ulimit -n`")?;
        let capture = options.network.capture.as_ref().map(CaptureTo::open).transpose()?;
        Ok(Opener { options, recipe, events, cores: privileges::cores(), bells, capture })
    }

    pub(crate) fn network(&self) -> &Network {
        &self.options.network
    }

    pub(crate) fn listeners(&self, loopback: bool) -> Vec<Listener> {
        let services = self.options.services.iter();
        services.map(|s| Listener { app: s.app as usize, port: s.port_on(loopback) }).collect()
    }

    /// Kernel sockets: on the addresses asked for, else on the interface's, else on 127.0.0.1.
    fn kernel_sockets(&self) -> Result<Running, String> {
        let addresses = self.kernel_addresses()?;
        let loopback = self.network().interface.is_none() && self.network().addresses.is_empty();
        let listeners = self.listeners(loopback);
        let workers = self.network().workers;
        self.check_descriptors();
        let config = epoll::Config {
            listeners: addresses
                .iter()
                .flat_map(|&address| listeners.iter().map(move |&l| (SocketAddr::new(address, l.port), l)))
                .collect(),
            trigger: match self.network().trigger {
                Trigger::Level => epoll::Trigger::Level,
                Trigger::Edge => epoll::Trigger::Edge,
            },
            connections: self.network().connections.div_ceil(workers),
            per_source: self.network().per_source.div_ceil(workers),
            congestion: self.network().congestion.map(|c| match c {
                Congestion::Cubic => "cubic",
                Congestion::NewReno => "reno",
            }),
            reuse_port: workers > 1,
        };
        let makers = self.bells.iter().map(|bell| {
            let (config, bell, recipe) = (config.clone(), bell.clone(), self.recipe.clone());
            Box::new(move || KernelSockets::open(&config, bell, recipe.apps())) as Maker<KernelSockets>
        });
        let crew = self.crew(makers.collect())?;
        Ok(self.running(addresses, loopback, crew))
    }

    /// Every connection is a descriptor on this rung.
    fn check_descriptors(&self) {
        let (_, limit) = epoll::raise_descriptor_limit();
        let wanted = self.network().connections as u64;
        if limit < wanted + DESCRIPTORS_SPARE {
            tracing::warn!(
                "{limit} files may be open, which is too few for --connections {wanted}; raise `ulimit -Hn`"
            );
        }
    }

    fn kernel_addresses(&self) -> Result<Vec<IpAddr>, String> {
        if !self.network().addresses.is_empty() {
            for &AddressPrefix { address, .. } in &self.network().addresses {
                let anywhere = address.is_unspecified() || address.is_loopback();
                if !anywhere && link::kernel_owner(address).map_err(|e| e.to_string())?.is_none() {
                    return Err(format!(
                        "kernel sockets listen only on addresses that the kernel has, and it does not have {address}"
                    ));
                }
            }
            return Ok(self.network().addresses.iter().map(|a| a.address).collect());
        }
        match &self.network().interface {
            None => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            Some(interface) => interface_addresses(interface),
        }
    }

    pub(crate) fn crew<E: crate::worker::Engine + 'static>(&self, makers: Vec<Maker<E>>) -> Result<Crew, String> {
        let bells = self.bells[..makers.len()].to_vec();
        Crew::start(makers, bells, &self.cores, self.network().poll, self.events)
    }

    pub(crate) fn running(&self, addresses: Vec<IpAddr>, loopback: bool, crew: Crew) -> Running {
        let listen = self.options.services.iter().map(|s| (s.app, s.port_on(loopback))).collect();
        Running { addresses, listen, interface: None, crew, keeps: None }
    }
}

impl Prober for Opener<'_> {
    type Taken = Running;

    fn attempt(&mut self, rung: Rung) -> Result<Running, String> {
        match rung {
            Rung::AfXdpZeroCopy => self.xdp(Mode::Native, CopyMode::ZeroCopy),
            Rung::AfXdpNative => self.xdp(Mode::Native, CopyMode::Copy),
            Rung::AfXdpGeneric => self.xdp(Mode::Generic, CopyMode::Copy),
            Rung::AfPacket => self.packet(),
            Rung::Tap => self.tap(),
            Rung::Epoll => self.kernel_sockets(),
        }
    }
}

/// The addresses of an interface that peers on the network can name without saying which link they mean.
pub(crate) fn interface_addresses(interface: &str) -> Result<Vec<IpAddr>, String> {
    let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let addresses = link::addresses(interface).map_err(|e| e.to_string())?;
    let addresses: Vec<_> = addresses.into_iter().map(|(address, _)| address).filter(|a| !link_local(a)).collect();
    if addresses.is_empty() {
        return Err(format!("{interface} has no address to share; give khamsin one of its own with --address IP/LEN"));
    }
    Ok(addresses)
}
