//! One transcript, every rung: the same client code against the simulator in virtual time and against each driver over
//! the kernel. The same bytes must come back, and the application must see the same events.

mod apps;
mod host;
mod kernel;
mod recording;
mod sim;
mod transcript;

use anyhow::{Context, Result, ensure};
use host::Hosted;
use kernel::KernelClient;
use khamsin::http::{Loader, Site, SiteConfig};
use khamsin_tests::bed::{self, refusal};
use khamsin_tests::pages::Pages;
use khamsin_tests::rung::Rung;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use recording::Record;
use sim::World;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use transcript::{Ending, Service, Transcript, run, transcripts};

/// What a connection looked like from both its ends.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    name: &'static str,
    got: Vec<u8>,
    ending: Ending,
    record: Record,
}

/// All transcripts, one after the other, over the kernel.
fn over_the_kernel(rung: Rung, site: Site) -> Result<Vec<Seen>> {
    let bed = rung.bed()?;
    let hosted = Hosted::start(rung, &bed, site)?;
    let address = hosted.address;
    let talk = move || -> Result<(Hosted, Vec<_>)> {
        let mut outcomes = Vec::new();
        for (i, transcript) in transcripts().iter().enumerate() {
            let server = SocketAddr::new(address, transcript.service.port());
            let mut client = KernelClient::connect(server, transcript.window)?;
            let outcome = run(transcript, &mut client).with_context(|| format!("transcript {}", transcript.name))?;
            drop(client);
            hosted.await_closed(i + 1).with_context(|| format!("transcript {}", transcript.name))?;
            outcomes.push(outcome);
        }
        Ok((hosted, outcomes))
    };
    let (mut hosted, outcomes) = bed.client().enter(talk)??;
    join(outcomes, hosted.finish()?)
}

/// All transcripts in virtual time.
fn in_memory(site: Site) -> Result<Vec<Seen>> {
    let mut world = World::new(site, None)?;
    let mut outcomes = Vec::new();
    for (i, transcript) in transcripts().iter().enumerate() {
        let mut client = world.connect(transcript.service.port(), transcript.window)?;
        let outcome = run(transcript, &mut client).with_context(|| format!("transcript {}", transcript.name))?;
        client.finish().with_context(|| format!("transcript {}", transcript.name))?;
        world.await_closed(i + 1).with_context(|| format!("transcript {}", transcript.name))?;
        outcomes.push(outcome);
    }
    let counters = world.counters();
    // A byte at a time is acknowledged without data now and then.
    ensure!(counters.acks_sent > 0, "{counters:?}");
    join(outcomes, world.into_records())
}

/// The table of TIME-WAIT connections is bounded: the oldest makes room.
fn time_wait_is_bounded(site: Site) -> Result<()> {
    let mut world = World::new(site, Some(1))?;
    let all = transcripts();
    let nonsense = all.iter().find(|t| t.name == "http_nonsense").context("the transcript that the server closes")?;
    for i in 0..3 {
        let mut client = world.connect(nonsense.service.port(), None)?;
        let (_, ending) = run(nonsense, &mut client)?;
        ensure!(ending == Ending::End, "{ending:?}");
        client.finish()?;
        world.await_closed(i + 1)?;
    }
    let counters = world.counters();
    ensure!((counters.time_wait_entered, counters.time_wait_evicted) == (3, 2), "{counters:?}");
    Ok(())
}

/// Puts what the clients saw beside what the application saw.
fn join(outcomes: Vec<(Vec<u8>, Ending)>, records: Vec<Record>) -> Result<Vec<Seen>> {
    ensure!(outcomes.len() == records.len(), "{} connections, {} records", outcomes.len(), records.len());
    let seen = transcripts().into_iter().zip(outcomes).zip(records).map(|((transcript, (got, ending)), record)| {
        let seen = Seen { name: transcript.name, got: without_date(&transcript, got), ending, record };
        Seen { record: Record { sent: without_date(&transcript, seen.record.sent.clone()), ..seen.record }, ..seen }
    });
    Ok(seen.collect())
}

/// The time of day is the one thing that may differ: its header is blanked in HTTP's bytes.
fn without_date(transcript: &Transcript, mut bytes: Vec<u8>) -> Vec<u8> {
    const NAME: &[u8] = b"\r\nDate: ";
    if transcript.service == Service::Http {
        let mut from = 0;
        while let Some(at) = bytes[from..].windows(NAME.len()).position(|w| w.eq_ignore_ascii_case(NAME)) {
            from += at + NAME.len();
            let end = bytes[from..].iter().position(|b| *b == b'\r').map_or(bytes.len(), |n| from + n);
            bytes[from..end].fill(b'-');
        }
    }
    bytes
}

/// What holds for any single rung.
fn check(seen: &[Seen]) -> Result<()> {
    for (transcript, seen) in transcripts().iter().zip(seen) {
        let name = transcript.name;
        if let Some(expect) = &transcript.expect {
            ensure!(
                seen.got == *expect,
                "{name}: {} bytes came back instead of {}, or others",
                seen.got.len(),
                expect.len()
            );
        } else {
            ensure!(seen.got.starts_with(b"HTTP/1.1 "), "{name}: {}", String::from_utf8_lossy(&seen.got));
        }
        ensure!(seen.got == seen.record.sent, "{name}: the client got other bytes than the application sent");
    }
    Ok(())
}

/// The same in every respect; the first difference is named.
fn compare(reference: &[Seen], seen: &[Seen]) -> Result<()> {
    ensure!(reference.len() == seen.len(), "{} transcripts instead of {}", seen.len(), reference.len());
    for (r, s) in reference.iter().zip(seen) {
        let name = r.name;
        ensure!(r.got == s.got, "{name}: other bytes came back ({} and {})", r.got.len(), s.got.len());
        ensure!(r.ending == s.ending, "{name}: {:?} and {:?}", r.ending, s.ending);
        let (a, b) = (&r.record, &s.record);
        ensure!(a.received == b.received, "{name}: the application received other bytes");
        let events = |r: &Record| format!("{:?}", (r.port, r.ended, r.shut, r.aborted, r.closed));
        ensure!(events(a) == events(b), "{name}: (port, ended, shut, aborted, closed) {} and {}", events(a), events(b));
        ensure!(a == b, "{name}: other records");
    }
    Ok(())
}

/// Right by itself, and the same as the first rung that was run.
fn judge(reference: &OnceLock<Vec<Seen>>, seen: &[Seen]) -> Result<(), Failed> {
    let judged = check(seen).and_then(|()| compare(reference.get_or_init(|| seen.to_vec()), seen));
    judged.map_err(|e| Failed::from(format!("{e:#}")))
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let refused = refusal();
    if refused.is_none()
        && let Err(e) = bed::sweep()
    {
        eprintln!("namespaces of dead test processes stay: {e:#}");
    }
    let pages = Arc::new(Pages::new().expect("temporary files can be written"));
    let (site, loader) = Loader::start(SiteConfig::new(pages.path())).expect("the pages can be loaded");
    let reference: Arc<OnceLock<Vec<Seen>>> = Arc::default();
    let mut trials = Vec::new();
    let (site_of_sim, reference_of_sim) = (site.clone(), Arc::clone(&reference));
    trials.push(Trial::test("sim", move || {
        let seen = in_memory(site_of_sim).map_err(|e| Failed::from(format!("{e:#}")))?;
        judge(&reference_of_sim, &seen)
    }));
    let site_of_table = site.clone();
    trials.push(Trial::test("time_wait_is_bounded", move || {
        time_wait_is_bounded(site_of_table).map_err(|e| Failed::from(format!("{e:#}")))
    }));
    for rung in [Rung::EpollLevel, Rung::EpollEdge, Rung::Packet, Rung::Tap, Rung::XdpNative, Rung::XdpGeneric] {
        let (refused, site, reference) = (refused.clone(), site.clone(), Arc::clone(&reference));
        trials.push(Trial::ignorable_test(rung.name(), move || {
            if let Some(reason) = refused.or_else(|| rung.refusal()) {
                println!("SKIPPED parity of {rung}: {reason}");
                return Ok(Completion::ignored_with(format!("SKIPPED: {reason}")));
            }
            let seen = over_the_kernel(rung, site).map_err(|e| Failed::from(format!("{e:#}")))?;
            judge(&reference, &seen)?;
            Ok(Completion::Completed)
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    loader.stop();
    drop(pages);
    conclusion.exit_code()
}
