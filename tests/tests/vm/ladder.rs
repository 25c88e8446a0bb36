//! The right rung, and a reason for each higher one.

use crate::Case;
use crate::guest::Guest;
use anyhow::{Context, Result, ensure};

pub(crate) const CASES: &[Case] =
    &[("rung", rung), ("why_not_higher", why_not_higher), ("required_rung", required_rung)];

/// Every rung, highest first.
const LADDER: [&str; 6] = ["af-xdp-zero-copy", "af-xdp-native", "af-xdp-generic", "af-packet", "tap", "epoll"];

fn rung(guest: &mut Guest) -> Result<()> {
    let rung = guest.rung_taken()?;
    guest.figure("rung", &rung)?;
    guest.on_the_right_rung()
}

/// The higher rungs are exactly those that the matrix explains, and the log explains them so.
fn why_not_higher(guest: &mut Guest) -> Result<()> {
    let higher: Vec<&str> = LADDER.into_iter().take_while(|&r| r != guest.rung).collect();
    let explained: Vec<&str> = guest.why.iter().map(|(rung, _)| rung.as_str()).collect();
    ensure!(higher == explained, "vm/matrix explains {explained:?}; the rungs above {} are {higher:?}", guest.rung);
    let log = guest.log("main");
    for (rung, words) in &guest.why {
        let told = log.lines().find(|l| l.contains(&format!("{rung} refused: ")));
        let told = told.with_context(|| format!("no word about {rung}"))?;
        ensure!(told.contains(words), "`{told}` does not say `{words}`");
    }
    Ok(())
}

/// One rung more than there is ends with exit code 1 and the reason.
fn required_rung(guest: &mut Guest) -> Result<()> {
    let Some((higher, words)) = guest.why.last().cloned() else { return Ok(()) };
    if guest.options.is_empty() {
        guest.stop("main")?;
        let options = guest.main_options();
        let said = guest.sh(&format!("AS= serve above {options} --require {higher}"))?;
        ensure!(said.code == 1 && said.text.contains(&words), "{} {}", said.code, said.text);
        ensure!(guest.ended("above")? == "1", "another exit code than 1");
    }
    Ok(())
}
