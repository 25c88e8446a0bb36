//! Traces, read and replayed: ours of `tests/traces`, and recorded ones beside the checkout.
//!
//! What they come to stands in snapshots; `KHAMSIN_BLESS=1 cargo test -p khamsin-tests --test traces` writes them, and the
//! traces, anew.

mod file;
mod make;
mod talk;

use file::{PLAIN, pcap};
use khamsin_drivers::capture::pcapng::{About, Packet, Pcapng};
use khamsin_tools::replay::list::list;
use khamsin_tools::replay::reader::Bounds;
use khamsin_tools::replay::report::report;
use khamsin_tools::replay::server::Against;
use khamsin_tools::replay::stats::{pictures, svg};
use khamsin_tools::replay::trace::Trace;
use khamsin_tools::replay::world::{Order, Plans, replay};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use talk::Talk;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces")
}

/// Compares `bytes` with a committed file, or commits them.
fn same(name: &str, bytes: &[u8]) -> Result<(), String> {
    let path = folder().join(name);
    if std::env::var_os("KHAMSIN_BLESS").is_some() {
        return fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()));
    }
    match fs::read(&path) {
        Ok(kept) if kept == bytes => Ok(()),
        Ok(kept) => Err(first_difference(name, &kept, bytes)),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn first_difference(name: &str, kept: &[u8], got: &[u8]) -> String {
    let (kept, got) = (String::from_utf8_lossy(kept), String::from_utf8_lossy(got));
    let pair = kept.lines().zip(got.lines()).enumerate().find(|(_, (kept, got))| kept != got);
    match pair {
        Some((line, (kept, got))) => format!(
            "{name}, line {}:\n  kept: {kept}\n  now:  {got}\nif that is as it should be: KHAMSIN_BLESS=1 cargo test -p khamsin-tests --test traces",
            line + 1
        ),
        None => format!("{name}: {} lines are kept, {} are there now", kept.lines().count(), got.lines().count()),
    }
}

/// Everything that the tool says of a trace.
fn account(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut text = format!("== {name}\n");
    let trace = match Trace::read(path, &Bounds::default()) {
        Ok(trace) => trace,
        Err(error) => {
            let shown = error.to_string().replace(&path.display().to_string(), &name);
            return format!("{text}{shown}\n\n");
        }
    };
    for trouble in trace.troubles() {
        let _ = writeln!(text, "{trouble}");
    }
    let _ = writeln!(text, "{}", list(&trace));
    let plans = Plans::new(&trace.flows);
    let table = |fast| {
        let outcome =
            replay(&trace.flows, &plans, &Order { fast, ..Order::default() }).expect("the stack comes to rest");
        let (table, _) = report(&outcome, Against::Scripted);
        // The last line counts every frame: no change that a user sees.
        table.rsplit_once('\n').map_or(String::new(), |(table, _)| table.to_owned())
    };
    let (recorded, fast) = (table(false), table(true));
    let _ = writeln!(text, "{recorded}");
    if fast != recorded {
        let _ = writeln!(text, "with --fast:\n{fast}");
    }
    text + "\n"
}

#[test]
fn our_traces_are_what_we_make_and_come_to_what_is_kept() {
    let mut wrong = Vec::new();
    let mut text = String::new();
    for (name, bytes) in make::all() {
        wrong.extend(same(name, &bytes).err());
        text += &account(&folder().join(name));
    }
    wrong.extend(same("made.snapshot", text.as_bytes()).err());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn recorded_sessions_come_to_what_is_kept() {
    let folder = std::env::var_os("KHAMSIN_TRACES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces"), PathBuf::from);
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("SKIPPED: no recorded sessions at {} (set KHAMSIN_TRACES)", folder.display());
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "pcap" || ext == "pcapng"));
    paths.sort();
    let text: String = paths.iter().map(|path| account(path)).collect();
    same("recorded.snapshot", text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// What the stack says to many clients at once is written, read, and said again: the same bytes.
#[test]
fn a_conversation_under_load_replays_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let made = make::all().into_iter().find(|(name, _)| *name == "link-ethernet.pcap").unwrap();
    let first = folder.path().join(made.0);
    fs::write(&first, made.1).unwrap();
    let trace = Trace::read(&first, &Bounds::default()).unwrap();
    let plans = Plans::new(&trace.flows);
    let order = Order { against: Against::Http, copies: 60, rounds: 2, record: 1 << 30, ..Order::default() };
    let outcome = replay(&trace.flows, &plans, &order).unwrap();
    assert_eq!(outcome.counters.accepted, 240);

    let second = folder.path().join("again.pcapng");
    let workers = ["worker 0".to_owned()];
    let about =
        About { program: "test", comment: Some("a comment"), interface: "eth0", workers: &workers, filter: None };
    let mut file = Pcapng::new(fs::File::create(&second).unwrap(), &about).unwrap();
    for shot in &outcome.shots {
        let (received, bytes) = (!shot.from_stack, (&shot.bytes[..]).into());
        let comments = vec!["one more".to_owned()];
        file.packet(&Packet { received, stamp_ns: shot.at_ns, bytes, comments, ..Packet::default() }).unwrap();
    }
    file.flush().unwrap();
    let again = Trace::read(&second, &Bounds::default()).unwrap();
    assert_eq!((again.flows.len(), again.troubles()), (240, vec![]));
    let said: u64 = again.flows.iter().map(|flow| flow.down.bytes()).sum();
    assert_eq!(said, outcome.counters.tx_payload_bytes);
    let plans = Plans::new(&again.flows);
    for fast in [false, true] {
        let outcome = replay(&again.flows, &plans, &Order { fast, ..Order::default() }).unwrap();
        let (table, same) = report(&outcome, Against::Scripted);
        assert!(same, "{table}");
        assert_eq!(outcome.counters.tx_payload_bytes, said);
    }
}

/// A file that ends anywhere is read as far as it goes, and says so; it never harms.
#[test]
fn a_file_that_ends_anywhere_is_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    for name in ["link-ethernet.pcapng", "trouble-loss.pcap"] {
        let whole = make::all().into_iter().find(|(known, _)| *known == name).unwrap().1;
        let mut complete = 0;
        for len in (0..whole.len()).step_by(29) {
            fs::write(&path, &whole[..len]).unwrap();
            let Ok(trace) = Trace::read(&path, &Bounds::default()) else { continue };
            complete += usize::from(trace.damage.is_none());
            list(&trace);
            Plans::new(&trace.flows);
        }
        assert!(complete < whole.len() / 29 / 10, "{name}: most cuts are noticed, {complete} were not");
    }
}

/// The pictures of a flow show what is in it.
#[test]
fn pictures_show_what_is_in_a_flow() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in make::all() {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let Ok(trace) = Trace::read(&path, &Bounds::default()) else { continue };
        for flow in &trace.flows {
            let shown = pictures(flow);
            let sent: u32 = flow.segments.iter().filter(|s| !s.from_client).map(|s| s.len).sum();
            let interval = shown.down.throughput.get(1).map_or(0.0, |second| second.0 - shown.down.throughput[0].0);
            let summed: f64 = shown.down.throughput.iter().map(|(_, mbit)| mbit * interval / 8.0 * 1e6).sum();
            assert!((summed - f64::from(sent)).abs() < 1.0, "{name}: {summed} of {sent} bytes");
            assert!(shown.down.rtt.iter().chain(&shown.up.rtt).all(|(at, ms)| *at >= 0.0 && *ms >= 0.0), "{name}");
            let drawn = svg(name, &shown).unwrap();
            assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{name}");
            let odd = svg("a\u{1}<b>&\"\u{1b}[0m.pcap", &shown).unwrap();
            assert!(odd.contains("a\u{fffd}&lt;b&gt;&amp;") && !odd.contains(['\u{1}', '\u{1b}']), "{name}");
            if name == "trouble-loss.pcap" {
                assert_eq!(shown.down.again.len(), 1);
                assert!(drawn.contains("server, again"));
            }
        }
    }
}

/// What is more than the bounds allow is left out, and that is said.
#[test]
fn bounds_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link-ethernet.pcap");
    let made = make::all().into_iter().find(|(name, _)| *name == "link-ethernet.pcap").unwrap();
    fs::write(&path, made.1).unwrap();
    let bounds = Bounds { packets: 5, ..Bounds::default() };
    let trace = Trace::read(&path, &bounds).unwrap();
    assert_eq!(trace.packets, 5);
    assert!(trace.damage.unwrap().contains("first 5 packets"));
    let trace = Trace::read(&path, &Bounds { flows: 1, ..Bounds::default() }).unwrap();
    assert_eq!(trace.flows.len(), 1);
    assert!(trace.left_out > 5 && trace.troubles()[0].contains("only the first 1 flows") && !trace.is_sound());
}

/// What is kept to be written has an end, which copies and rounds of a flow would not have.
#[test]
fn no_more_of_a_conversation_is_kept_than_was_asked_for() {
    let trace = Trace::read(&folder().join("link-ethernet.pcap"), &Bounds::default()).unwrap();
    let plans = Plans::new(&trace.flows);
    let of = |copies, record| replay(&trace.flows, &plans, &Order { copies, record, ..Order::default() });
    assert!(of(1, 100_000).unwrap().shots.len() > 20);
    let refused = of(1000, 100_000).err().unwrap().to_string();
    assert!(refused.contains("fewer copies or rounds"), "{refused}");
}

/// Where nothing can be used, it is said why.
#[test]
fn a_trace_of_nothing_but_rubbish_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pcap");
    let mut shots = Talk::v4().syn().take();
    shots[0].1.truncate(44);
    fs::write(&path, pcap(PLAIN, 1, &shots)).unwrap();
    let refused = Trace::read(&path, &Bounds::default()).unwrap_err().to_string();
    assert!(refused.contains("1 packets and no TCP flow among them: packet 1 is left out"), "{refused}");
}

/// A small file may speak of more text than anybody wants to see made up.
#[test]
fn text_that_is_missing_is_made_up_only_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gaps.pcap");
    let mut shots = Vec::new();
    for flow in 0..80 {
        let mut talk = Talk::new(&format!("192.0.2.1:{}", 40_000 + flow), "192.0.2.2:80");
        talk.open();
        for _ in 0..60 {
            talk.up = talk.up.wrapping_add(1_000_000);
            talk.up(b"x").ack(false);
        }
        shots.extend(talk.take());
    }
    fs::write(&path, pcap(PLAIN, 1, &shots)).unwrap();
    let trace = Trace::read(&path, &Bounds::default()).unwrap();
    let plans = Plans::new(&trace.flows);
    let made: u64 = (0..80).filter_map(|flow| plans.of(flow)).map(|plan| plan.missing).sum();
    assert!(made > 1 << 31 && made <= 4 << 30, "{made} bytes");
}

/// As many connections at the same time as were recorded.
#[test]
fn every_connection_has_its_place_in_the_stack() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.pcap");
    fs::write(&path, pcap(PLAIN, 1, &Talk::v4().open().take())).unwrap();
    let trace = Trace::read(&path, &Bounds::default()).unwrap();
    let plans = Plans::new(&trace.flows);
    let order = Order { copies: 17_000, ..Order::default() };
    let (table, same) = report(&replay(&trace.flows, &plans, &order).unwrap(), Against::Scripted);
    assert!(same, "{}", table.lines().last().unwrap_or_default());
}

/// A SYN without its last options was one that offered to scale windows, if more came than fits into them as they stand.
#[test]
fn a_window_scale_that_was_cut_off_is_made_up() {
    let trace = Trace::read(&folder().join("trouble-snaplen-options.pcap"), &Bounds::default()).unwrap();
    let plans = Plans::new(&trace.flows);
    // 20,042 bytes at once, and a window of 502.
    assert_eq!(plans.of(0).unwrap().window_scale, Some(6));
    let outcome = replay(&trace.flows, &plans, &Order::default()).unwrap();
    assert!(outcome.virtual_us < 2_000_000, "{} us: windows were probed", outcome.virtual_us);
}
