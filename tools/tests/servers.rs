//! `khamsin-bench servers` from its command line to its files: one cell, one second.

use khamsin_tools::bed;
use khamsin_tools::command::run;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

#[test]
fn one_cell_is_measured_and_told() {
    if let Some(reason) = bed::refusal() {
        println!("SKIPPED one_cell_is_measured_and_told: {reason}");
        return;
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("SKIPPED one_cell_is_measured_and_told: server and client want a core each");
        return;
    }
    let folder = tempfile::Builder::new().prefix("khamsin-bench-").tempdir().unwrap();
    let (json, plots) = (folder.path().join("all.json"), folder.path().join("plots"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_khamsin-bench"));
    command.args([
        "servers",
        "echo",
        "--only",
        "af-xdp,epoll",
        "--runs",
        "1",
        "--seconds",
        "1",
        "--ordinary",
        "--json",
    ]);
    command.arg(&json).arg("--plots").arg(&plots);
    let ran = run(command, Duration::from_secs(300)).unwrap().ok().unwrap();
    let text = ran.text();
    assert!(text.contains("| 64 B | default | khamsin af-xdp | ") && text.contains("not measured"), "{ran}");

    let all: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let runs = all["runs"].as_array().unwrap();
    let servers: Vec<&str> = runs.iter().filter_map(|r| r["server"].as_str()).collect();
    assert_eq!(servers, ["khamsin af-xdp", "khamsin epoll"], "{all:#}");
    for run in runs {
        let figure = |name: &str| run["figures"][name].as_f64();
        assert!(figure("requests_per_s").unwrap() > 100.0 && figure("errors") == Some(0.0), "{run:#}");
        // Whose work it was is known: the server did some, and its core at least as much.
        let (server, core) = (figure("server_cores").unwrap(), figure("core_share").unwrap());
        assert!(server > 0.01 && server < core + 0.1, "{run:#}");
    }
    let drawn = || std::fs::read_to_string(plots.join("requests.svg"));
    assert!(drawn().unwrap().contains("khamsin epoll"));
    std::fs::remove_file(plots.join("requests.svg")).unwrap();
    let mut again = Command::new(env!("CARGO_BIN_EXE_khamsin-bench"));
    again.arg("plot").arg(&json).arg(&plots);
    run(again, Duration::from_secs(20)).unwrap().ok().unwrap();
    assert!(drawn().unwrap().contains("khamsin epoll"), "drawn again from the figures");
}
