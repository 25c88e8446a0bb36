//! From `kill -9` under load to the next served page.

use crate::contender::fetch;
use crate::report::Report;
use crate::{Case, Options};
use anyhow::{Result, ensure};
use khamsin_drivers::clock::Clock;
use khamsin_tools::command::Running;
use khamsin_tools::deadline::wait_for;
use khamsin_tools::pages::Pages;
use khamsin_tools::rung::Rung;
use khamsin_tools::server::Server;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// Kills and restarts the server on each rung as often as there are runs.
///
/// # Errors
/// It does not serve again.
pub(crate) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    for rung in [Rung::XdpNative, Rung::EpollLevel] {
        let (bed, pages) = (rung.bed()?, Pages::new()?);
        let address = SocketAddr::new(rung.v4().parse()?, 80);
        let mut server = Server::on(rung, &bed, pages.path())?;
        let mut times = Vec::new();
        for _ in 0..options.runs.max(3) {
            let mut wrk = bed.client().command("wrk");
            wrk.args(["-t1", "-c64", "-d2s", &format!("http://{}/small", rung.v4())]);
            let load = Running::start(wrk, None)?;
            thread::sleep(Duration::from_millis(700));
            server.signal(Signal::KILL)?;
            server.wait(Duration::from_secs(5))?;
            let killed = Clock.now();
            server = Server::on(rung, &bed, pages.path())?;
            wait_for("a page after the restart", Duration::from_secs(10), || {
                bed.client().enter(move || Ok(fetch(address).ok().map(drop)))?
            })?;
            times.push(Clock.now().since(killed).as_secs_f64() * 1e3);
            load.finish(Duration::from_secs(20))?;
        }
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        ensure!(worst < 10_000.0, "{rung}: {worst:.0} ms until the next page");
        report.line(
            Case::Restart,
            format!(
                "khamsin {rung}: from kill -9 under load to the next page {median:.0} ms (worst {worst:.0} ms of {})",
                times.len()
            ),
            serde_json::json!({"rung": rung.name(), "ms": times}),
        );
    }
    Ok(())
}
