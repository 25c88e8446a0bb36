//! pcapng files (draft-ietf-opsawg-pcapng): one section, one Ethernet interface with nanoseconds, enhanced packets.

use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const ETHERNET: u16 = 1;

const COMMENT: u16 = 1;
/// Of a section: the program that wrote it.
const USER_APPLICATION: u16 = 4;
/// Of an interface.
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
/// Of a packet: its direction in the two lowest bits.
const FLAGS: u16 = 2;

/// Writes packets as they come.
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file about the interface `interface`; `comment` is on the section.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W, interface: &str, comment: &str) -> io::Result<Self> {
        let mut writer = Writer { out, block: Vec::new() };
        writer.block.extend(0x1a2b_3c4d_u32.to_le_bytes());
        writer.block.extend([1, 0, 0, 0]);
        writer.block.extend((-1_i64).to_le_bytes());
        option(&mut writer.block, COMMENT, comment.as_bytes());
        option(&mut writer.block, USER_APPLICATION, concat!("khamsin-replay ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut writer.block, 0, &[]);
        writer.end(SECTION)?;
        writer.block.extend(ETHERNET.to_le_bytes());
        writer.block.extend([0; 6]); // nothing is cut short
        option(&mut writer.block, NAME, interface.as_bytes());
        option(&mut writer.block, RESOLUTION, &[9]);
        option(&mut writer.block, 0, &[]);
        writer.end(INTERFACE)?;
        Ok(writer)
    }

    /// Writes a frame; `at_ns` since 1970. Who listens on the server's interface sees what it sends as outbound.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn packet(&mut self, at_ns: u64, outbound: bool, frame: &[u8], comment: Option<&str>) -> io::Result<()> {
        let len = (frame.len() as u32).to_le_bytes();
        self.block.extend(0_u32.to_le_bytes());
        self.block.extend(((at_ns >> 32) as u32).to_le_bytes());
        self.block.extend((at_ns as u32).to_le_bytes());
        self.block.extend(len);
        self.block.extend(len);
        self.block.extend(frame);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
        if let Some(comment) = comment {
            option(&mut self.block, COMMENT, comment.as_bytes());
        }
        option(&mut self.block, FLAGS, &(1 + u32::from(outbound)).to_le_bytes());
        option(&mut self.block, 0, &[]);
        self.end(PACKET)
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self, kind: u32) -> io::Result<()> {
        let len = (self.block.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&len)?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&len)?;
        self.block.clear();
        Ok(())
    }
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(0xfffc)];
    block.extend(code.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    block.extend(value);
    block.resize(block.len().next_multiple_of(4), 0);
}
