//! The committed inputs, each given to its target once: what was ever found stays found.

use std::fs;
use std::path::Path;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{} cannot be listed: {error}", folder.display()))
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 10, "the corpus of {target} is gone");
    for path in inputs {
        println!("{}", path.display());
        run(&fs::read(&path).expect("an input can be read"));
    }
}

#[test]
fn frames() {
    replay("frames", khamsin_fuzz::frames::run);
}

#[test]
fn tcp() {
    replay("tcp", khamsin_fuzz::tcp::run);
}

#[test]
fn http() {
    replay("http", khamsin_fuzz::http::run);
}

#[cfg(feature = "traces")]
#[test]
fn pcap() {
    replay("pcap", khamsin_fuzz::traces::run);
}

/// Dice find what no committed input has.
#[test]
fn a_short_storm() {
    use khamsin_fuzz::source::Dice;
    use khamsin_fuzz::tcp::{Session, extremes};
    use khamsin_fuzz::world::WORLDS;
    for kind in 0..WORLDS {
        let mut session = Session::new(kind);
        for seed in 0..10 {
            session.run(&mut Dice::new(seed, u64::MAX), 2000);
        }
        session.flood();
        session.drain(1);
    }
    extremes::strays(1);
}
