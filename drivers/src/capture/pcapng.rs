//! pcapng files (draft-ietf-opsawg-pcapng): one section, Ethernet interfaces with nanoseconds, enhanced packets with their
//! direction, statistics.

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

/// Longest frame that is written whole, bytes: longer than any there is (a super-frame is at most 64 KiB).
const SNAPLEN: u32 = 262_144;
/// `epb_flags`: direction.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;
/// `if_filter` begins with this where a libpcap expression follows.
const FILTER_IS_TEXT: u8 = 0;

/// A frame on its way into the file.
#[derive(Clone, Debug, Default)]
pub struct Packet<'a> {
    /// The number of its interface, in the order of [`About::workers`].
    pub interface: u32,
    /// Inbound, for who listens there; otherwise outbound.
    pub received: bool,
    /// Nanoseconds since 1970, UTC.
    pub stamp_ns: u64,
    /// From the destination MAC on.
    pub bytes: Cow<'a, [u8]>,
    /// Frames missing before it.
    pub missed: u64,
    /// What a reader shows beside it.
    pub comments: Vec<String>,
}

/// What became of the frames of an interface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// Received by khamsin.
    pub(super) received: u64,
    /// Dropped before khamsin saw them.
    pub(super) dropped: u64,
    /// Captured, as far as the filter wants them.
    pub(super) accepted: u64,
    /// Not in the file.
    pub(super) missing: u64,
}

/// What stands at the head of a file.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The program that writes it, and its version.
    pub program: &'a str,
    /// On the whole of it.
    pub comment: Option<&'a str>,
    /// Where the frames were seen.
    pub interface: &'a str,
    /// Who saw them: an interface description for each.
    pub workers: &'a [String],
    /// An expression of pcap-filter(7) that all frames meet.
    pub filter: Option<&'a str>,
}

/// An open pcapng file.
pub struct Pcapng<W: Write>(PcapNgWriter<W>);

impl<W: Write> Pcapng<W> {
    /// Writes the section header and one interface description for each worker. `out` had better be buffered.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W, about: &About<'_>) -> io::Result<Self> {
        let mut section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::OS(std::env::consts::OS.into()),
                SectionHeaderOption::UserApplication(about.program.to_owned().into()),
            ],
            ..Default::default()
        };
        section.options.extend(about.comment.map(|comment| SectionHeaderOption::Comment(comment.to_owned().into())));
        let mut file = Pcapng(PcapNgWriter::with_section_header(out, section).map_err(io_error)?);
        for worker in about.workers {
            let mut options = vec![
                InterfaceDescriptionOption::IfName(about.interface.to_owned().into()),
                InterfaceDescriptionOption::IfDescription(worker.clone().into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            if let Some(filter) = about.filter {
                let text: Vec<u8> = std::iter::once(FILTER_IS_TEXT).chain(filter.bytes()).collect();
                options.push(InterfaceDescriptionOption::IfFilter(Cow::Owned(text)));
            }
            let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: SNAPLEN, options };
            file.0.write_pcapng_block(block).map_err(io_error)?;
        }
        file.flush()?;
        Ok(file)
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let flags = if packet.received { INBOUND } else { OUTBOUND };
        let mut options = vec![EnhancedPacketOption::Flags(flags)];
        if packet.missed > 0 {
            options.push(EnhancedPacketOption::DropCount(packet.missed));
        }
        options.extend(packet.comments.iter().map(|c| EnhancedPacketOption::Comment(c.into())));
        let block = EnhancedPacketBlock {
            interface_id: packet.interface,
            timestamp: Duration::from_nanos(packet.stamp_ns),
            original_len: packet.bytes.len() as u32,
            data: Cow::Borrowed(&*packet.bytes),
            options,
        };
        self.0.write_pcapng_block(block).map(drop).map_err(io_error)
    }

    /// What became of an interface's frames, at the end.
    pub(super) fn statistics(
        &mut self,
        interface: u32,
        stamp_ns: u64,
        sums: Sums,
        comments: &[String],
    ) -> io::Result<()> {
        let mut options = vec![
            InterfaceStatisticsOption::IsbIfRecv(sums.received),
            InterfaceStatisticsOption::IsbIfDrop(sums.dropped),
            InterfaceStatisticsOption::IsbFilterAccept(sums.accepted),
            InterfaceStatisticsOption::IsbOsDrop(sums.missing),
        ];
        options.extend(comments.iter().map(|c| InterfaceStatisticsOption::Comment(c.into())));
        // The high half of the time comes first; the crate writes 64 bits in the byte order of the file.
        let block = InterfaceStatisticsBlock { interface_id: interface, timestamp: stamp_ns.rotate_left(32), options };
        self.0.write_pcapng_block(block).map(drop).map_err(io_error)
    }

    /// Where the blocks go.
    pub(super) fn inner(&mut self) -> &mut W {
        self.0.get_mut()
    }

    /// Hands on what is buffered below.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
