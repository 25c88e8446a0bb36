//! Prebuilt bytes that many connections send by reference.

use core::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes that never change, shared by the connections of one shard.
///
/// Loaded on any thread as an `Arc<[u8]>`; each shard wraps it once, so that what the data path counts is a plain
/// reference count of its own core and no cache line travels between cores.
#[derive(Clone)]
pub struct Content(Rc<Arc<[u8]>>);

impl Content {
    /// Wraps bytes for use on this shard.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Content(Rc::new(bytes.into()))
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// References to these bytes on this shard, this one included.
    pub fn references(&self) -> usize {
        Rc::strong_count(&self.0)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.len())
    }
}
