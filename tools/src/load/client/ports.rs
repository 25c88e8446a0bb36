//! Which connection has which address and port: a table with a place for every pair.

use std::net::Ipv4Addr;

const NOBODY: u32 = u32::MAX;
/// The first port that is given out; the others up to 65,535 follow.
const FIRST: usize = 1024;
const PORTS: usize = 65_536 - FIRST;
/// Most addresses.
const SOURCES_MAX: usize = 255;

/// The pairs of all addresses and ports.
pub(super) struct Ports {
    sources: Vec<Ipv4Addr>,
    base: u32,
    /// The number of the address that lies so far behind `base`.
    by_distance: Box<[u8]>,
    ids: Box<[u32]>,
    /// The pair to look at next, counted address by address, then port by port.
    cursor: usize,
}

impl Ports {
    /// A table in which every pair is free; ports are given out from one that `seed` decides, so that two runs in a row do
    /// not begin with pairs that the server still has in TIME-WAIT. `None` without an address.
    pub(super) fn new(sources: &[Ipv4Addr], seed: usize) -> Option<Ports> {
        let sources: Vec<Ipv4Addr> = sources.iter().copied().take(SOURCES_MAX).collect();
        let base = u32::from(*sources.iter().min()?);
        let span = (u32::from(*sources.iter().max()?) - base) as usize + 1;
        let mut by_distance = vec![u8::MAX; span.min(1 << 16)].into_boxed_slice();
        for (number, source) in sources.iter().enumerate() {
            *by_distance.get_mut((u32::from(*source) - base) as usize)? = number as u8;
        }
        let pairs = sources.len() * PORTS;
        Some(Ports { base, by_distance, ids: vec![NOBODY; pairs].into(), cursor: seed % pairs, sources })
    }

    /// All pairs, in use or not.
    pub(super) fn room(&self) -> usize {
        self.ids.len()
    }

    /// The address with this number.
    #[inline]
    pub(super) fn address(&self, source: u8) -> [u8; 4] {
        self.sources.get(usize::from(source)).map_or([0; 4], Ipv4Addr::octets)
    }

    /// Gives `id` a pair that nobody has.
    pub(super) fn take(&mut self, id: u32) -> Option<(u8, u16)> {
        for _ in 0..self.ids.len() {
            let (source, port) = (self.cursor % self.sources.len(), self.cursor / self.sources.len());
            self.cursor = (self.cursor + 1) % self.ids.len();
            let place = &mut self.ids[source * PORTS + port];
            if *place == NOBODY {
                *place = id;
                return Some((source as u8, (port + FIRST) as u16));
            }
        }
        None
    }

    /// Who has this pair.
    #[inline]
    pub(super) fn find(&self, address: [u8; 4], port: u16) -> Option<u32> {
        let distance = u32::from_be_bytes(address).wrapping_sub(self.base) as usize;
        let source = usize::from(*self.by_distance.get(distance)?);
        let at = usize::from(port).checked_sub(FIRST)?;
        self.ids.get(source * PORTS + at).copied().filter(|id| *id != NOBODY)
    }

    /// Nobody has this pair any more.
    pub(super) fn free(&mut self, source: u8, port: u16) {
        if let Some(place) = self.ids.get_mut(usize::from(source) * PORTS + usize::from(port) - FIRST) {
            *place = NOBODY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_given_out_once_and_found() {
        let sources: Vec<Ipv4Addr> = ["198.18.1.9", "198.18.1.3"].iter().map(|a| a.parse().unwrap()).collect();
        let mut ports = Ports::new(&sources, 12_345).unwrap();
        let given: Vec<(u8, u16)> = (0..ports.room() as u32).map(|id| ports.take(id).unwrap()).collect();
        assert_eq!(ports.take(0), None);
        for (id, &(source, port)) in given.iter().enumerate() {
            assert_eq!(ports.find(ports.address(source), port), Some(id as u32));
        }
        assert_eq!(ports.find([198, 18, 1, 4], 2000), None, "an address between ours");
        assert_eq!(ports.find([198, 18, 1, 3], 80), None);
        let (source, port) = given[77];
        ports.free(source, port);
        assert_eq!(ports.find(ports.address(source), port), None);
        assert_eq!(ports.take(5), Some((source, port)));
        assert!(Ports::new(&[], 0).is_none());
    }
}
