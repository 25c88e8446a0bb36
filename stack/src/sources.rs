//! How many of something each source holds, in a fixed amount of memory.
//!
//! A count-min sketch (Cormode, Muthukrishnan 2005) with keyed hashes: what it says of a source is never too little, and
//! too much only if others share both of its cells, which nobody without the key can arrange.

use siphasher::sip::SipHasher13;

/// Counts by source: an IPv4 address (IPv4-mapped), or an IPv6 /64, which one host may fill with addresses of its choice.
pub struct Sources {
    rows: [Box<[u32]>; 2],
    mask: u32,
    hash: SipHasher13,
}

/// The cells of a source: it is hashed once for all that is done with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place([u32; 2]);

fn cells_for(holders: usize) -> usize {
    (2 * holders).clamp(1024, 1 << 20).next_power_of_two()
}

impl Sources {
    /// Room for `holders` sources with hardly a collision; `key` is secret.
    pub fn new(holders: usize, key: &[u8; 16]) -> Self {
        let cells = cells_for(holders);
        let row = || vec![0; cells].into_boxed_slice();
        Sources { rows: [row(), row()], mask: cells as u32 - 1, hash: SipHasher13::new_with_key(key) }
    }

    /// Bytes of room for `holders` sources.
    pub fn bytes_for(holders: usize) -> usize {
        2 * cells_for(holders) * size_of::<u32>()
    }

    /// Where a source is counted.
    #[inline]
    pub(crate) fn place(&self, source: &[u8; 16]) -> Place {
        let v4 = source[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        // The length tells the families apart.
        let hash = if v4 { self.hash.hash(&source[12..]) } else { self.hash.hash(&source[..8]) };
        Place([hash as u32 & self.mask, (hash >> 32) as u32 & self.mask])
    }

    /// What this source holds, at most.
    pub fn count(&self, source: &[u8; 16]) -> u32 {
        self.count_at(self.place(source))
    }

    /// It holds one more.
    pub fn add(&mut self, source: &[u8; 16]) {
        self.add_at(self.place(source));
    }

    /// It holds one less; it must have held one.
    pub fn remove(&mut self, source: &[u8; 16]) {
        self.remove_at(self.place(source));
    }

    #[inline]
    pub(crate) fn count_at(&self, Place([a, b]): Place) -> u32 {
        self.rows[0][a as usize].min(self.rows[1][b as usize])
    }

    #[inline]
    pub(crate) fn add_at(&mut self, Place(cells): Place) {
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row[cell as usize] += 1;
        }
    }

    #[inline]
    pub(crate) fn remove_at(&mut self, Place(cells): Place) {
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            let count = &mut row[cell as usize];
            debug_assert!(*count > 0, "nothing is taken away that was not added");
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowKey;

    fn v4(n: u32, port: u16) -> FlowKey {
        let [_, b, c, d] = n.to_be_bytes();
        FlowKey::v4([198, b, c, d], [198, 18, 0, 2], port, 80)
    }

    #[test]
    fn counts_by_address_and_by_prefix() {
        let mut sources = Sources::new(64, &[7; 16]);
        let v6 = |tail: u8, net: u8| {
            let mut a = [0; 16];
            (a[0], a[7], a[15]) = (0xfd, net, tail);
            FlowKey::v6(a, [0xfd; 16], 1, 80)
        };
        for n in 0..5 {
            sources.add(&v4(1, n).peer);
            sources.add(&v6(n as u8, 1).peer);
        }
        assert_eq!(sources.count(&v4(1, 99).peer), 5);
        assert_eq!(sources.count(&v6(200, 1).peer), 5);
        assert_eq!(sources.count(&v6(1, 2).peer), 0);
        sources.remove(&v4(1, 3).peer);
        assert_eq!(sources.count(&v4(1, 99).peer), 4);
    }

    #[test]
    fn says_too_much_of_hardly_anybody_and_too_little_of_nobody() {
        let mut sources = Sources::new(1000, &[9; 16]);
        for n in 0..1000 {
            sources.add(&v4(n, 1).peer);
        }
        assert!((0..1000).all(|n| sources.count(&v4(n, 1).peer) >= 1));
        let wrong = (1000..11_000).filter(|&n| sources.count(&v4(n, 1).peer) > 0).count();
        assert!(wrong < 2500, "{wrong} of 10,000 strangers");
        for n in 0..1000 {
            sources.remove(&v4(n, 1).peer);
        }
        assert!((0..1000).all(|n| sources.count(&v4(n, 1).peer) == 0));
    }
}
