//! Several queues and workers: no flow is lost when the queue that carries it changes.

use crate::load::figure;
use crate::special;
use anyhow::{Context, Result, ensure};
use khamsin_tests::bed::{Bed, CLIENT_LINK, SERVER_LINK};
use khamsin_tests::command::Ran;
use khamsin_tests::pages::Pages;
use khamsin_tests::rung::Rung;
use khamsin_tests::server::Server;
use libtest_mimic::Trial;
use std::time::Duration;

pub(crate) fn specials(refused: &Option<String>) -> Vec<Trial> {
    vec![
        special("two_queues_two_workers::af-xdp-native", refused, NEEDS, || hop(Rung::XdpNative, "2")),
        special("two_queues_two_workers::af-xdp-generic", refused, NEEDS, || hop(Rung::XdpGeneric, "2")),
        special("two_queues_two_workers::af-packet", refused, NEEDS, || hop(Rung::Packet, "2")),
        special("two_queues_one_worker::af-xdp-native", refused, NEEDS, || hop(Rung::XdpNative, "1")),
        special("two_workers::tap", refused, NEEDS, two_workers_on_tap),
        special("two_workers::epoll-level", refused, NEEDS, || two_workers(Rung::EpollLevel)),
        special("two_workers::epoll-edge", refused, NEEDS, || two_workers(Rung::EpollEdge)),
    ]
}

const NEEDS: &[&str] = &["python3", "wrk", "ethtool"];
const LIMIT: Duration = Duration::from_secs(120);

/// The client's transmit queue follows the CPU that its process runs on (XPS), and veth hands a frame of transmit queue
/// N to receive queue N: a process that hops between two CPUs takes its flows from one queue to the other.
fn hop(rung: Rung, workers: &str) -> Result<()> {
    let (bed, pages) = (Bed::veth(2)?, Pages::new()?);
    if rung == Rung::XdpGeneric {
        bed.client_segmentation(false)?;
    }
    for (queue, cpus) in [(0, "1"), (1, "2")] {
        let script = format!("echo {cpus} > /sys/class/net/{CLIENT_LINK}/queues/tx-{queue}/xps_cpus");
        bed.client().run("sh", &["-c", &script], LIMIT).context("choose transmit queues by CPU")?;
    }
    let server = Server::with(rung, &bed, pages.path(), &["--workers", workers])?;
    let said = client(&bed, rung, "hop")?;
    if rung == Rung::XdpNative {
        let counted = bed.server.run("ethtool", &["-S", SERVER_LINK], LIMIT)?.text();
        for queue in 0..2 {
            let packets = figure(&counted, &format!("rx_queue_{queue}_xdp_packets:"))?;
            ensure!(packets > 1000.0, "no flow changed its queue, so nothing was tested: {counted}");
        }
    }
    ensure!(said.text().contains("moved"), "{said}");
    load(&bed, rung)?;
    server.stop()
}

fn two_workers(rung: Rung) -> Result<()> {
    let (bed, pages) = (rung.bed()?, Pages::new()?);
    let server = Server::with(rung, &bed, pages.path(), &["--workers", "2"])?;
    crate::address_host_side(rung, &bed)?;
    client(&bed, rung, "hop")?;
    load(&bed, rung)?;
    server.stop()
}

fn two_workers_on_tap() -> Result<()> {
    two_workers(Rung::Tap)
}

fn client(bed: &Bed, rung: Rung, case: &str) -> Result<Ran> {
    bed.client().run("python3", &["-B", &crate::script_path("echo.py"), case, rung.v4(), "7", "50"], LIMIT)
}

fn load(bed: &Bed, rung: Rung) -> Result<()> {
    let url = format!("http://{}/page", rung.v4());
    let report = bed.client().run("wrk", &["-t2", "-c32", "-d2s", &url], LIMIT)?.text();
    ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    ensure!(figure(&report, "Requests/sec:")? > 200.0, "{report}");
    Ok(())
}
