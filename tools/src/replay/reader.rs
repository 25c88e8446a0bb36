//! Packets of a trace file, pcap or pcapng, through libpcap.
//!
//! libpcap bounds what it takes: a packet longer than 256 KiB ends the reading, and so does a header that makes no sense.
//! Everything up to there is used.

use super::link::{self, Link};
use super::source::{HEAD, Source};
use khamsin::output::note;
use pcap::{Capture, Offline, Precision};
use std::path::Path;

/// First words of pcap files, with micro- and with nanoseconds (draft-ietf-opsawg-pcap, section 4).
const PCAP_MAGIC: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
/// First bytes of compressed files, and what unpacks them to standard output.
const COMPRESSED: [(&[u8], &str); 5] = [
    (&[0x1f, 0x8b], "gzip -dc"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd -dc"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz -dc"),
    (b"BZh", "bzip2 -dc"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4 -dc"),
];

/// Times behind this are taken as this, seconds since 1970: the year 2500. pcapng has room for more than any calendar.
const SECONDS_MAX: u64 = 16_725_225_600;

/// How much of a trace is used. What lies beyond is not read, and the trace says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Packets.
    pub packets: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// TCP flows; packets of others are counted and forgotten.
    pub flows: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { packets: 4_000_000, bytes: 1 << 30, flows: 65_536 }
    }
}

/// Why a trace cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses it.
    #[error("{path} cannot be read: {reason}; name a pcap or pcapng file, or `-` and send one to standard input")]
    Unopened {
        /// The file.
        path: String,
        /// Why.
        reason: std::io::Error,
    },
    /// libpcap refuses it.
    #[error("{path} cannot be read as a trace: {reason}; give a pcap or pcapng file")]
    Refused {
        /// The file.
        path: String,
        /// In libpcap's words.
        reason: String,
    },
    /// It is compressed.
    #[error("{path} cannot be read as a trace: it is compressed; unpack it, as in `{with} FILE | khamsin-replay -`")]
    Compressed {
        /// The file.
        path: String,
        /// What unpacks it.
        with: &'static str,
    },
    /// Its header says that no byte of any packet was kept.
    #[error(
        "{path} cannot be read as a trace: its header says that packets were cut after 0 bytes (snaplen), \
         so it is damaged; mend that field or record again"
    )]
    ZeroSnaplen {
        /// The file.
        path: String,
    },
    /// Its packets begin with a header that is not known here.
    #[error(
        "{path} holds packets of link type {name}, of which no IP packets can be made here; record on an Ethernet, cooked, \
         raw or loopback interface"
    )]
    LinkType {
        /// The file.
        path: String,
        /// In libpcap's words, or a number.
        name: String,
    },
    /// There is nothing to do with it.
    #[error("{path} holds {packets} packets and no TCP flow among them{damage}")]
    NoTcp {
        /// The file.
        path: String,
        /// Packets read.
        packets: u64,
        /// Why no more were read or used, with a colon in front.
        damage: String,
    },
}

/// One packet.
pub(super) struct Packet<'a> {
    /// From 1, as Wireshark counts.
    pub(super) number: u64,
    /// Nanoseconds since 1970; never less than the one before.
    pub(super) at_ns: u64,
    /// From its link header on.
    pub(super) bytes: &'a [u8],
}

/// Whether a file that begins like this is a pcap file with a snapshot length of 0. libpcap takes that as no limit, as pcapng
/// does (there 0 is said to mean it); a pcap file has no such word, and where that field is gone, its neighbours may be.
fn keeps_nothing(head: &[u8]) -> bool {
    let Some(magic) = head.first_chunk().map(|four| u32::from_be_bytes(*four)) else { return false };
    let is_pcap = PCAP_MAGIC.into_iter().any(|known| [known, known.swap_bytes()].contains(&magic));
    is_pcap && head.len() == HEAD && head[16..20] == [0; 4]
}

/// An open trace.
pub(super) struct Reader {
    capture: Capture<Offline>,
    pub(super) link: Link,
    number: u64,
    last_ns: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Reader, OpenError> {
        let name = || path.display().to_string();
        let waits = || note(format_args!("khamsin-replay: nobody writes to the FIFO {} yet; waiting", name()));
        let source = Source::open(path, waits).map_err(|reason| OpenError::Unopened { path: name(), reason })?;
        let refused = |error: pcap::Error| {
            let (path, reason) = (name(), words(&error));
            let opened = format!("{}: ", source.name().display());
            let reason = reason.strip_prefix(&opened).map(str::to_owned).unwrap_or(reason);
            OpenError::Refused { path, reason }
        };
        if let Some((_, with)) = COMPRESSED.iter().find(|(magic, _)| source.head().starts_with(magic)) {
            return Err(OpenError::Compressed { path: name(), with });
        }
        let capture = Capture::from_file_with_precision(source.name(), Precision::Nano).map_err(refused)?;
        if keeps_nothing(source.head()) {
            return Err(OpenError::ZeroSnaplen { path: name() });
        }
        let kind = capture.get_datalink();
        let Some(link) = link::of(kind.0) else {
            let name_of_kind = kind.get_name().unwrap_or_else(|_| kind.0.to_string());
            return Err(OpenError::LinkType { path: name(), name: name_of_kind });
        };
        Ok(Reader { capture, link, number: 0, last_ns: 0 })
    }

    /// The next packet; `None`: there is none. An error says after how many the file is damaged, and how.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, String> {
        let number = self.number + 1;
        let packet = match self.capture.next_packet() {
            Ok(packet) => packet,
            Err(pcap::Error::NoMorePackets) => return Ok(None),
            Err(error) => {
                let words = words(&error);
                return Err(format!("packet {number} cannot be read: {words}{}", advice(&words)));
            }
        };
        self.number = number;
        // Nanoseconds stand where microseconds are otherwise. What a clock set back would do is not replayed.
        let seconds = u64::try_from(packet.header.ts.tv_sec).unwrap_or(0).min(SECONDS_MAX);
        let nanos = u64::try_from(packet.header.ts.tv_usec).unwrap_or(0);
        self.last_ns = self.last_ns.max(seconds.saturating_mul(1_000_000_000).saturating_add(nanos));
        Ok(Some(Packet { number, at_ns: self.last_ns, bytes: packet.data }))
    }
}

/// What to do about what libpcap does not take though nothing is wrong with it.
fn advice(words: &str) -> &'static str {
    if words.contains("different from the snapshot length of the first") {
        return "; `editcap -F pcap FILE NEW.pcap` makes one of them";
    }
    match words.contains("different from the type of the first") {
        true => "; record interfaces of different kinds into files of their own",
        false => "",
    }
}

/// What libpcap says, in one line.
fn words(error: &pcap::Error) -> String {
    let text = match error {
        pcap::Error::PcapError(text) => text.clone(),
        other => other.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
