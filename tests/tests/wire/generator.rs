//! khamsin-load against the server: every engine, every mode, every byte verified, no error.

use crate::{Case, Scene, everywhere};
use anyhow::{Error, Result, ensure};
use khamsin_tests::bed::CLIENT_LINK;
use khamsin_tests::rung::Rung;
use khamsin_tools::load::tally::Tally;
use khamsin_tools::load::{cli::Cli, crew, report};

pub(crate) const CASES: &[Case] = &[
    Case::new("khamsin_load_sockets", &[], everywhere, sockets),
    Case::new("khamsin_load_af_xdp", &[], behind_veth, |s| frames(s, "af-xdp")),
    Case::new("khamsin_load_af_packet", &[], behind_veth, |s| frames(s, "af-packet")),
];

/// Addresses of the client's own TCP: on the link, and nobody's.
const SOURCES: &str = "198.18.0.64/28";

/// A kernel behind the link, and a stack of our own.
pub(crate) fn behind_veth(rung: Rung) -> bool {
    matches!(rung, Rung::XdpNative | Rung::EpollLevel)
}

/// Runs `khamsin-load` with these words in the client's namespace, and wants everything answered right.
pub(crate) fn load(scene: &Scene, words: &[String]) -> Result<Tally> {
    let job = Cli::job_of(words.iter().map(String::as_str)).map_err(Error::msg)?;
    let theirs = job.clone();
    let outcome = scene.bed.client().enter(move || crew::run(&theirs))??;
    ensure!(report::went_well(&job, &outcome.tally), "{words:?}: {:#}", report::json(&job, &outcome));
    Ok(outcome.tally)
}

/// The words of a line, in front of what all loads have in common.
pub(crate) fn words(scene: &Scene, target: &str, line: &str) -> Vec<String> {
    let url = match target {
        "echo" => format!("echo://{}:7", scene.rung.v4()),
        path => scene.url(path),
    };
    [url.as_str(), "--quiet", "--timeout", "20"].into_iter().chain(line.split_whitespace()).map(str::to_owned).collect()
}

fn modes(scene: &Scene, carrier: &str) -> Result<()> {
    let body = format!("--body {}", scene.pages.file("page").display());
    let big = format!("--body {}", scene.pages.file("big").display());
    let kept = load(scene, &words(scene, "/page", &format!("-c 20 -n 2000 {body} {carrier}")))?;
    ensure!(kept.answered == 2000 && kept.opened == 20, "{kept:?}");
    let fresh = load(scene, &words(scene, "/page", &format!("-c 20 -n 500 --new-connections {body} {carrier}")))?;
    ensure!(fresh.answered == 500 && fresh.opened >= 500, "{fresh:?}");
    load(scene, &words(scene, "/big", &format!("-c 2 -n 4 {big} {carrier}")))?;
    let open = load(scene, &words(scene, "/small", &format!("-c 20 --rate 500 --seconds 1 {carrier}")))?;
    ensure!(open.answered + open.unsent >= 450 && open.corrected_us.len() >= open.answered, "{open:?}");
    load(scene, &words(scene, "echo", &format!("-c 10 -n 1000 --size 3000 --pipeline 4 {carrier}")))?;
    let idle = load(scene, &words(scene, "echo", &format!("-c 5 -n 100 --idle 300 --wake {carrier}")))?;
    ensure!(idle.idle_held == 300 && idle.woken == 300, "{idle:?}");
    // Five connections of 800 kbit/s: 100,000 bytes each in a second, and what lies in the windows.
    let slow = load(scene, &words(scene, "/big", &format!("-c 5 --slow 800000 --seconds 1 {carrier}")))?;
    ensure!((100_000..900_000).contains(&slow.bytes), "{slow:?}");
    Ok(())
}

fn sockets(scene: &mut Scene) -> Result<()> {
    modes(scene, "--backend sockets")?;
    modes(scene, "--backend sockets --poll busy")
}

fn frames(scene: &mut Scene, backend: &str) -> Result<()> {
    modes(scene, &format!("--backend {backend} --interface {CLIENT_LINK} --source {SOURCES}"))
}
