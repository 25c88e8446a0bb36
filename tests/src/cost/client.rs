//! The other end: as little of TCP as an echo needs.

use super::Case;
use anyhow::{Context, Result, ensure};
use khamsin_drivers::sim::Side;
use khamsin_stack::wire::{Flags, Kind, LinkHeader, Outgoing, Template, TxChecksum, VlanTags, parse};
use khamsin_stack::{FlowKey, Instant};

/// Connections of one source address.
const PORTS: usize = 50_000;

pub(super) struct Client {
    template: Template,
    timestamps: bool,
    seq: u32,
    ack: u32,
    /// The server's last timestamp.
    heard: u32,
}

impl Client {
    pub(super) fn new(case: &Case, number: usize) -> Self {
        // As the client sees it: the server is the peer.
        let (host, port) = ((number / PORTS) as u8, 10_000 + (number % PORTS) as u16);
        let key = if case.v6 {
            let address = |last: u8, host: u8| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host, last];
            FlowKey { peer: address(1, 0), local: address(2, host), peer_port: 7, local_port: port }
        } else {
            FlowKey::v4([198, 18, 0, 1], [198, 18, 1 + host, 2], 7, port)
        };
        let link = LinkHeader { dst: Side::Left.mac(), src: Side::Right.mac(), vlan: VlanTags::NONE };
        Client { template: Template::new(&link, &key), timestamps: case.timestamps, seq: 1, ack: 0, heard: 0 }
    }

    /// A segment of this client, written into `frame`; returns its length.
    pub(super) fn write(&mut self, now: Instant, flags: Flags, payload: &[u8], frame: &mut [u8]) -> Result<usize> {
        let mut options = Vec::new();
        if self.timestamps {
            options.extend([1, 1, 8, 10]);
            options.extend((now.micros() as u32 / 1000).to_be_bytes());
            options.extend(self.heard.to_be_bytes());
        }
        let at = self.template.header_len() + options.len();
        let frame = frame.get_mut(..at + payload.len()).context("the frame is too short")?;
        frame[at..].copy_from_slice(payload);
        let segment = Outgoing {
            seq: self.seq,
            ack: self.ack,
            flags,
            window: 65_535,
            options: &options,
            payload_len: payload.len(),
        };
        self.template.write(frame, &segment, TxChecksum::Full).context("the segment does not fit")?;
        self.seq = self.seq.wrapping_add(payload.len() as u32 + u32::from(flags.syn()) + u32::from(flags.fin()));
        Ok(at + payload.len())
    }

    /// Takes the server's answer, which must carry exactly `payload`.
    pub(super) fn take(&mut self, frame: &[u8], payload: &[u8]) -> Result<()> {
        let Kind::Tcp(segment) = parse(frame).kind else { anyhow::bail!("the server sent something that is not TCP") };
        ensure!(!segment.flags.rst(), "the server sent a reset");
        ensure!(segment.ack == self.seq, "the server acknowledged {} of {}", segment.ack, self.seq);
        ensure!(frame.get(segment.payload_at as usize..) == Some(payload), "the echo is not what was sent");
        self.ack = segment.seq.wrapping_add(segment.sequence_len());
        if self.timestamps {
            let options = khamsin_stack::wire::tcp_options(segment.header(frame));
            self.heard = options.timestamps.context("the server left its timestamp out")?.0;
        }
        Ok(())
    }
}
