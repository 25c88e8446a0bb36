//! The file: it gets whole blocks, so that whoever reads it while it grows, or after a SIGKILL, finds no half of one; what a
//! full disk cut is taken back.

use super::pcapng::{About, Packet, Pcapng, Sums};
use std::fs::File;
use std::io::{self, Seek, Write};

/// Bytes of blocks that go to the file in one write; a longer block goes alone.
const ROOM: usize = 64 << 10;
/// `epb`: the type of a block with a frame.
const ENHANCED_PACKET: u32 = 6;
/// Bytes that are kept free for the statistics when the disk is full: of each interface, and of what is said about the end.
const STATISTICS: usize = 96;
const LAST_WORDS: usize = 512;

/// Blocks on their way into a file.
pub(super) struct Output {
    blocks: Pcapng<Vec<u8>>,
    file: File,
    /// Where the next block goes, in a regular file; `None` in a FIFO or a device.
    end: Option<u64>,
    interfaces: usize,
}

/// What a file did not take.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: io::Error,
    /// Frames that were in the buffer and are not in the file, of each interface.
    pub(super) lost: Vec<u64>,
}

impl Output {
    /// Begins a file anew with the blocks that stand at its head.
    ///
    /// # Errors
    /// It takes nothing.
    pub(super) fn new(mut file: File, about: &About<'_>) -> io::Result<Output> {
        let regular = file.metadata()?.is_file();
        if regular {
            file.rewind()?;
            file.set_len(0)?;
        }
        let blocks = Pcapng::new(Vec::with_capacity(2 * ROOM), about)?;
        let mut output = Output { blocks, file, end: regular.then_some(0), interfaces: about.workers.len() };
        output.flush().1.map_err(|refused| refused.error)?;
        Ok(output)
    }

    /// A frame; whether it is time to flush.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> bool {
        // Memory takes all.
        let _ = self.blocks.packet(packet);
        self.blocks.inner().len() >= ROOM
    }

    /// What became of an interface's frames, at the end.
    pub(super) fn statistics(&mut self, interface: u32, stamp_ns: u64, sums: Sums, comments: &[String]) {
        let _ = self.blocks.statistics(interface, stamp_ns, sums, comments);
    }

    /// Hands on what is there. Says how many frames are in the file now that were not before.
    pub(super) fn flush(&mut self) -> (u64, Result<(), Refused>) {
        let buffer = self.blocks.inner();
        let (passed, result) = write(&mut self.file, buffer);
        let (mut whole, mut frames) = (0, 0);
        let mut lost = vec![0; self.interfaces];
        // When the file takes no more, what it says of itself at its end should find room.
        let room = LAST_WORDS + STATISTICS * self.interfaces;
        let most = if result.is_ok() || self.end.is_none() { passed } else { passed.saturating_sub(room) };
        let mut fits = true;
        for block in Blocks(buffer) {
            fits &= whole + block.len() <= most;
            whole += if fits { block.len() } else { 0 };
            match interface_of(block) {
                Some(_) if fits => frames += 1,
                Some(interface) => lost.get_mut(interface).into_iter().for_each(|n| *n += 1),
                None => {}
            }
        }
        buffer.clear();
        if let Some(end) = &mut self.end {
            *end += whole as u64;
            if result.is_err() {
                // Nobody can be told if that fails as well; then the file ends with half a block.
                let _ = self.file.set_len(*end);
                let _ = self.file.seek(io::SeekFrom::Start(*end));
            }
        }
        (frames, result.map_err(|error| Refused { error, lost }))
    }

    /// The file that is written.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// Writes until all is written. Says how many bytes were.
fn write(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut passed = 0;
    while passed < bytes.len() {
        match file.write(&bytes[passed..]) {
            Ok(0) => return (passed, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => passed += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (passed, Err(error)),
        }
    }
    (passed, Ok(()))
}

/// The blocks in what [`Pcapng`] wrote, one after the other.
struct Blocks<'a>(&'a [u8]);

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (block, rest) = self.0.split_at_checked(word(self.0, 4)? as usize)?;
        self.0 = rest;
        (!block.is_empty()).then_some(block)
    }
}

/// The interface of a block that holds a frame.
fn interface_of(block: &[u8]) -> Option<usize> {
    (word(block, 0)? == ENHANCED_PACKET).then_some(word(block, 8)? as usize)
}

/// The number at an offset.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
