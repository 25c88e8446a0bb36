//! An end for frames written by hand.

use super::Side;
use super::wire::State;
use std::cell::RefCell;
use std::rc::Rc;

/// Sends and receives whole Ethernet frames.
pub struct SimEnd {
    state: Rc<RefCell<State>>,
    side: Side,
    number: usize,
}

impl SimEnd {
    pub(super) fn new(state: Rc<RefCell<State>>, side: Side, number: usize) -> Self {
        SimEnd { state, side, number }
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Puts a frame on the wire at the time of the last [`advance`](super::Wire::advance).
    pub fn send(&self, frame: &[u8]) {
        self.state.borrow_mut().send(self.side, frame);
    }

    /// The next frame that has arrived.
    pub fn recv(&self) -> Option<Vec<u8>> {
        self.state.borrow_mut().receive(self.side, self.number)
    }
}
