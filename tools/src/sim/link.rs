//! The path of a scenario as a fault policy of the wire, and what the world sees pass.

use super::scenario::Scenario;
use khamsin_drivers::sim::{Fate, Faults, Path, Side, Sighting};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Frames that the path has harmed so far, as [`Fates`](super::scenario::Fates) names them.
pub type Harmed = Rc<RefCell<BTreeSet<(bool, u64)>>>;

/// The path between the server and its peers.
pub struct Link {
    path: Path,
    scenario: Rc<Scenario>,
    harmed: Harmed,
}

impl Link {
    /// The path of `scenario`; the frames that it harms are noted in `harmed`.
    pub fn new(scenario: Rc<Scenario>, harmed: Harmed) -> Link {
        let path = Path::new(scenario.seed, scenario.down.clone(), scenario.up.clone());
        Link { path, scenario, harmed }
    }

    fn undisturbed_us(&self, from: Side) -> u64 {
        match from {
            Side::Left => self.scenario.down.delay_us,
            Side::Right => self.scenario.up.delay_us,
        }
    }
}

impl Faults for Link {
    fn fate(&mut self, seen: &Sighting<'_>) -> Fate {
        let fate = self.path.fate(seen);
        let held = self.undisturbed_us(seen.from);
        if fate == (Fate { delay_us: held, ..Fate::FINE }) {
            return fate;
        }
        if let Some(fates) = &self.scenario.fates
            && !fates.name(seen.from, seen.index)
        {
            return Fate { delay_us: if fate.lost { held } else { fate.delay_us }, ..Fate::FINE };
        }
        if fate.lost || fate.copy_after_us.is_some() || fate.flipped_bit.is_some() {
            self.harmed.borrow_mut().insert((seen.from == Side::Left, seen.index));
        }
        fate
    }
}
