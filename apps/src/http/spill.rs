//! Bytes of an answer that found no room yet.

use khamsin_stack::Stream;
use khamsin_stack::app::send_some;
use std::collections::VecDeque;

/// Bytes in one chunk, which is what growing costs at a time.
const CHUNK: usize = 32 * 1024;

/// A queue of bytes that grows without ever copying what it holds.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are gone.
    at: usize,
    len: usize,
}

impl Spill {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sends `bytes` behind what waits already; keeps what finds no room.
    pub(crate) fn put(&mut self, stream: &mut impl Stream, bytes: &[u8]) {
        let sent = if self.is_empty() { send_some(stream, bytes) } else { 0 };
        self.push(&bytes[sent..]);
    }

    fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = self.chunks.back().map_or(0, |chunk| chunk.capacity() - chunk.len());
            if room == 0 {
                let size = if self.chunks.is_empty() { bytes.len().min(CHUNK) } else { CHUNK };
                self.chunks.push_back(Vec::with_capacity(size));
            } else if let Some(chunk) = self.chunks.back_mut() {
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                chunk.extend_from_slice(now);
                bytes = later;
            }
        }
    }

    /// Sends what waits, as far as there is room. True when nothing waits any more.
    pub(crate) fn flush(&mut self, stream: &mut impl Stream) -> bool {
        while let Some(chunk) = self.chunks.front() {
            let sent = send_some(stream, &chunk[self.at..]);
            self.len -= sent;
            self.at += sent;
            if self.at < chunk.len() {
                return false;
            }
            self.at = 0;
            self.chunks.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Shape, Wire};

    #[test]
    fn keeps_order_through_any_amount() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        let mut wire = Wire::new(Shape { window: 100, piece: 33, ..Shape::WHOLE });
        let mut spill = Spill::default();
        for part in bytes.chunks(777) {
            spill.put(&mut wire, part);
        }
        assert_eq!(spill.len(), bytes.len() - 100);
        assert_eq!(wire.output(), &bytes[..100]);
        let mut wire = Wire::new(Shape::WHOLE);
        assert!(spill.flush(&mut wire));
        assert_eq!(wire.output(), &bytes[100..]);
        assert!(spill.is_empty());
    }
}
