//! Loss, delay, reordering and duplicates between khamsin and the Linux kernel's TCP, by `sch_netem` in the guest.
//!
//! The client is the host's kernel. The guest's kernel forwards between its network card and a veth pair with a second
//! server on the far end; netem sits on both links that lead out of the guest's kernel: `v0` towards the server, `eth0`
//! towards the client.

use crate::Case;
use crate::guest::Guest;
use crate::talk::{fetch, upload};
use anyhow::{Context, Result, ensure};

pub(crate) const CASES: &[Case] = &[
    ("netem_loss", |g| impaired(g, "loss 4%")),
    ("netem_delay", |g| impaired(g, "delay 15ms 5ms")),
    ("netem_reordering", |g| impaired(g, "delay 8ms reorder 60% 25%")),
    ("netem_duplicates", |g| impaired(g, "duplicate 8%")),
    ("netem_all_of_it", everything),
];

const BEHIND: &str = "198.19.0.2";
const TOWARDS_SERVER: &str = "v0";
const TOWARDS_CLIENT: &str = "eth0";
/// Bytes of an upload: some 280 segments.
const UPLOAD: usize = 400_009;

/// The way to the second server, and the server; made once.
fn ready(guest: &mut Guest) -> Result<()> {
    if guest.sh("[ -e /sys/class/net/v0 ]")?.code != 0 {
        guest.ok("ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up")?;
        guest.ok("ip address add 198.19.0.1/24 dev v0 && echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        // Frames as they are on a wire: netem takes each on its own.
        guest.sh("ethtool -K eth0 gro off; ethtool -K eth0 lro off; ethtool -K v0 tso off gso off gro off")?;
    }
    if !guest.is_running("behind")? {
        let options = "--interface v1 --address 198.19.0.2/24 --gateway 198.19.0.1 --backend af-xdp";
        let ready = guest.start("behind", "", options)?;
        ensure!(ready.rung == "af-xdp-native", "veth in the guest: {}", ready.rung);
    }
    Ok(())
}

/// Down and up with `netem` in one direction, then in the other.
fn impaired(guest: &mut Guest, netem: &str) -> Result<()> {
    ready(guest)?;
    for link in [TOWARDS_SERVER, TOWARDS_CLIENT] {
        between(guest, &[link], netem)?;
    }
    guest.log_must_be_calm("behind")
}

/// Everything at once, in both directions.
fn everything(guest: &mut Guest) -> Result<()> {
    ready(guest)?;
    between(guest, &[TOWARDS_SERVER, TOWARDS_CLIENT], "delay 8ms 3ms reorder 60% 25% loss 2% duplicate 2%")?;
    guest.stop("behind")
}

fn between(guest: &mut Guest, links: &[&str], netem: &str) -> Result<()> {
    for link in links {
        guest.ok(&format!("tc qdisc replace dev {link} root netem {netem}"))?;
    }
    let done = fetch(BEHIND, "medium", &guest.page("medium")?).context("download");
    let done = done.and_then(|()| upload(BEHIND, UPLOAD).context("upload"));
    let mut seen = String::new();
    for link in links {
        seen += &guest.ok(&format!("tc -s qdisc show dev {link}; tc qdisc del dev {link} root"))?;
    }
    done.with_context(|| format!("{netem} on {links:?}: {seen}"))?;
    // That netem was in the way at all.
    let sent: u64 = numbers(&seen, "pkt");
    let dropped: u64 = numbers(&seen, "(dropped");
    ensure!(sent > 100, "few packets passed: {seen}");
    ensure!(!netem.contains("loss") || dropped > 0, "nothing was lost: {seen}");
    Ok(())
}

/// The sum of the numbers that stand before (`pkt`) or behind (`(dropped`) a word.
fn numbers(text: &str, word: &str) -> u64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = |i: usize| words.get(i).and_then(|w| w.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().ok());
    let places = words.iter().enumerate().filter(|(_, w)| **w == word);
    places.filter_map(|(i, _)| if word.starts_with('(') { at(i + 1) } else { at(i.wrapping_sub(1)) }).sum()
}
