//! From the front of a packet to its IP header, for every link type that traces of TCP come with
//! (<https://www.tcpdump.org/linktypes.html>).

/// Link headers, by what stands in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// Ethernet II, with VLAN tags or without.
    Ethernet,
    /// Nothing: the packet is IP.
    Raw,
    /// Four bytes that name the address family, in the byte order of whoever recorded it (`DLT_NULL`), or in the network's (`DLT_LOOP`).
    Family,
    /// Linux's `any` interface.
    Cooked,
    /// The same, second version.
    Cooked2,
}

/// The link header that libpcap's number `kind` stands for.
pub(super) fn of(kind: i32) -> Option<Link> {
    Some(match kind {
        1 => Link::Ethernet,
        // DLT_RAW has a number for each system; 228 and 229 are IPv4 and IPv6 alone.
        12 | 14 | 101 | 228 | 229 => Link::Raw,
        0 | 108 => Link::Family,
        113 => Link::Cooked,
        276 => Link::Cooked2,
        _ => return None,
    })
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q, 802.1ad, and what was used before that.
const TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
/// Tags of one frame that are looked behind.
const TAGS_MAX: usize = 4;
/// PPPoE session (RFC 2516), and IPv4 and IPv6 in PPP.
const PPPOE: u16 = 0x8864;

/// The IP packet in `bytes`; `None`: it holds something else, or ends before it.
pub(super) fn ip(link: Link, bytes: &[u8]) -> Option<&[u8]> {
    match link {
        Link::Ethernet => behind(be16(bytes, 12)?, bytes.get(14..)?),
        Link::Raw => versioned(bytes),
        Link::Family => versioned(bytes.get(4..)?),
        Link::Cooked => behind(be16(bytes, 14)?, bytes.get(16..)?),
        Link::Cooked2 => behind(be16(bytes, 0)?, bytes.get(20..)?),
    }
}

/// The IP packet in what follows an EtherType.
fn behind(mut ethertype: u16, mut rest: &[u8]) -> Option<&[u8]> {
    for _ in 0..TAGS_MAX {
        if !TAGS.contains(&ethertype) {
            break;
        }
        ethertype = be16(rest, 2)?;
        rest = rest.get(4..)?;
    }
    match ethertype {
        IPV4 | IPV6 => versioned(rest),
        PPPOE if matches!(be16(rest, 6), Some(0x0021 | 0x0057)) => versioned(rest.get(8..)?),
        _ => None,
    }
}

fn versioned(packet: &[u8]) -> Option<&[u8]> {
    matches!(packet.first()? >> 4, 4 | 6).then_some(packet)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_is_found_behind_every_link_header() {
        let packet = [0x45, 0, 0, 1];
        let behind_each: [(i32, &[u8]); 9] = [
            (1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]),
            (1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 8, 0]),
            (1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0, 0x21]),
            (101, &[]),
            (0, &[2, 0, 0, 0]),
            (108, &[0, 0, 0, 2]),
            (113, &[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]),
            (113, &[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 5, 8, 0]),
            (276, &[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (kind, header) in behind_each {
            let bytes = [header, &packet].concat();
            let link = of(kind).unwrap();
            assert_eq!(ip(link, &bytes), Some(&packet[..]), "link type {kind}");
            for cut in 0..=header.len() {
                assert_eq!(ip(link, &bytes[..cut]), None, "link type {kind}, {cut} bytes");
            }
        }
    }

    #[test]
    fn what_is_not_ip_is_nothing() {
        let arp = [&[0; 12][..], &[8, 6], &[0x45; 30]].concat();
        assert_eq!(ip(Link::Ethernet, &arp), None);
        let tags = [&[0; 12][..], &[0x81, 0, 0, 1].repeat(40)].concat();
        assert_eq!(ip(Link::Ethernet, &tags), None);
        assert_eq!(ip(Link::Raw, &[0x55, 0]), None);
        assert_eq!(of(105), None, "IEEE 802.11");
    }
}
