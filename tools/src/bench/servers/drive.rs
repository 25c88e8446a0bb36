//! The clients: `khamsin-load` over AF_XDP, wrk and ab, each in a process of its own on the client's core.

use super::cell::{Cell, Client};
use super::lane::{Lane, client_words};
use super::{REALTIME, SERVER_CORE, ServersOptions, meter};
use anyhow::{Context, Result, ensure};
use khamsin_drivers::clock::Clock;
use khamsin_stack::Instant;
use khamsin_tools::bed::CLIENT_LINK;
use khamsin_tools::command::Running;
use khamsin_tools::wrk::{latency, number_behind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Addresses of the light client, which nobody else has: ports for a million connections twice over.
const SOURCES: &str = "198.18.0.64/26";
/// Load before anything is measured, seconds.
const WARM_UP: f64 = 0.4;

/// What a run found.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Drives one cell: `rate` requests a second, or as many as can be.
///
/// # Errors
/// The client or the server does not work. That requests fail is no error but counted.
pub(crate) fn once(
    cell: &Cell,
    lane: &Lane,
    rate: Option<f64>,
    options: &ServersOptions,
) -> Result<(Figures, Vec<String>)> {
    let seconds = cell.seconds.unwrap_or(options.seconds);
    let words = match cell.client {
        Client::Light => light(cell, lane, rate, seconds)?,
        Client::Wrk => wrk(cell, lane, seconds),
        Client::Ab => ab(cell, lane),
    };
    let realtime = cell.realtime() && !options.ordinary;
    let mut command = lane.bed.client().command("env");
    command.args(["LC_ALL=C", "RUST_BACKTRACE=0"]).args(client_words(realtime)).args(&words);
    let meter = meter::Meter::start(&lane.pids, realtime.then_some(REALTIME))?;
    let started = Clock.now();
    // Opening a million connections and ending them takes its time; nothing takes longer than that.
    let limit = Duration::from_secs(u64::from(seconds) + 150);
    let running = Running::start(command, None)?;
    if cell.client != Client::Ab {
        // Whoever looks for its end every few milliseconds takes a core from those who are measured as often.
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
    let ran = running.finish(limit)?;
    let ended = Clock.now();
    let readings = meter.stop()?;
    let (mut figures, said, from, until) = match cell.client {
        Client::Light => {
            let ran = ran.ok()?;
            read_light(&serde_json::from_slice(&ran.stdout).with_context(|| ran.to_string())?)?
        }
        Client::Wrk => {
            let ran = ran.ok()?;
            let (figures, said) = read_wrk(&ran.text())?;
            (figures, said, started.plus_micros(300_000), started.plus_micros(u64::from(seconds) * 1_000_000))
        }
        Client::Ab => {
            let ran = ran.ok()?;
            let (figures, said) = read_ab(&ran.text())?;
            (figures, said, started, ended)
        }
    };
    if let Some(spent) = meter::between(&readings, from, until, SERVER_CORE) {
        bill(&mut figures, spent);
    }
    if cell.idle > 0 {
        memory(&mut figures, cell, lane, &readings);
    }
    Ok((figures, said))
}

fn bill(figures: &mut Figures, spent: meter::Spent) {
    let requests = figures.get("requests_per_s").copied().unwrap_or(0.0) * spent.seconds;
    if requests > 0.0 {
        for (name, seconds) in [("server_us", spent.server), ("core_us", spent.core), ("machine_us", spent.machine)] {
            figures.insert(name.to_owned(), seconds * 1e6 / requests);
        }
    }
    figures.insert("server_cores".to_owned(), spent.server / spent.seconds);
    figures.insert("core_share".to_owned(), spent.core / spent.seconds);
}

/// What each idle connection takes: the most that the server had resident, and what the kernel's objects grew by.
fn memory(figures: &mut Figures, cell: &Cell, lane: &Lane, readings: &[meter::Reading]) {
    let most = |of: fn(&meter::Reading) -> u64| readings.iter().map(of).max().unwrap_or(0);
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / f64::from(cell.idle);
    figures.insert("bytes_each".to_owned(), each(most(|r| r.resident), lane.base_resident));
    if lane.key.contender.is_on_kernel_sockets() {
        figures.insert("kernel_bytes_each".to_owned(), each(most(|r| r.slab), lane.fresh.slab));
    }
}

fn url(cell: &Cell, lane: &Lane) -> String {
    match cell.path {
        Some(path) => format!("http://{}{path}", lane.key.contender.address()),
        None => format!("echo://{}:7", lane.key.contender.address()),
    }
}

fn light(cell: &Cell, lane: &Lane, rate: Option<f64>, seconds: u32) -> Result<Vec<String>> {
    let me = std::env::current_exe()?.to_string_lossy().into_owned();
    let line = format!(
        "load {} --backend af-xdp --xdp-mode native --interface {CLIENT_LINK} --source {SOURCES} --poll busy --json - \
         --connections {} --seconds {seconds} --warm-up {WARM_UP} --handshakes 512 --open-within 90 --timeout {}",
        url(cell, lane),
        cell.connections,
        f64::from(cell.timeout_ms) / 1e3,
    );
    let mut words: Vec<String> = vec![me];
    words.extend(line.split_whitespace().map(str::to_owned));
    let mut more = |line: String| words.extend(line.split_whitespace().map(str::to_owned));
    if let Some(rate) = rate {
        more(format!("--rate {rate}"));
    }
    if cell.idle > 0 {
        more(format!("--idle {}", cell.idle));
    }
    if cell.slow_bits_per_s > 0 {
        more(format!("--slow {}", cell.slow_bits_per_s));
    }
    if cell.fresh {
        more("--new-connections".to_owned());
    }
    Ok(words)
}

type Read = (Figures, Vec<String>, Instant, Instant);

fn read_light(value: &Value) -> Result<Read> {
    let number = |v: &Value| v.as_f64().context("no figure where one belongs in what khamsin-load says");
    let mut figures = Figures::new();
    let mut put = |name: &str, v: f64| {
        figures.insert(name.to_owned(), v);
    };
    put("requests_per_s", number(&value["requests_per_s"])?);
    put("megabytes_per_s", number(&value["bytes_per_s"])? / 1e6);
    put("errors", number(&value["errors_all"])?);
    put("client_cores", number(&value["cpu_s"])? / number(&value["seconds"])?.max(1e-9));
    let open = !value["offered_per_s"].is_null();
    if open {
        put("offered_per_s", number(&value["offered_per_s"])?);
        put("unsent", number(&value["unsent"])?);
    }
    let times = &value[if open { "corrected_latency_us" } else { "latency_us" }];
    if number(&times["count"])? > 0.0 {
        for (name, key) in [("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p999")] {
            put(name, number(&times[key])?);
        }
    }
    let idle = &value["idle"];
    if number(&idle["wanted"])? > 0.0 {
        put("idle_held", number(&idle["held"])?);
        put("idle_missing", number(&idle["wanted"])? - number(&idle["held"])?);
    }
    let said = value["said"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let from = Instant::from_micros(number(&value["from_us"])? as u64);
    let until = from.plus_micros((number(&value["seconds"])? * 1e6) as u64);
    Ok((figures, said, from, until))
}

fn wrk(cell: &Cell, lane: &Lane, seconds: u32) -> Vec<String> {
    let mut words: Vec<String> = ["wrk", "-t1", "--latency"].map(str::to_owned).into();
    words.extend([format!("-c{}", cell.connections), format!("-d{seconds}")]);
    if cell.fresh {
        words.extend(["-H", "Connection: close"].map(str::to_owned));
    }
    words.push(url(cell, lane));
    words
}

fn read_wrk(text: &str) -> Result<(Figures, Vec<String>)> {
    let mut figures = Figures::new();
    figures.insert("requests_per_s".to_owned(), number_behind(text, "Requests/sec:")?);
    figures.insert("p50_us".to_owned(), latency(text, "50%")?);
    figures.insert("p99_us".to_owned(), latency(text, "99%")?);
    let said: Vec<String> = text
        .lines()
        .filter(|l| l.contains("Socket errors") || l.contains("Non-2xx"))
        .map(|l| l.trim().to_owned())
        .collect();
    let digits = |line: &String| -> f64 {
        let numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|w| !w.is_empty());
        // The one number in front of `xx` is no count.
        numbers.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() - if line.contains("2xx") { 5.0 } else { 0.0 }
    };
    figures.insert("errors".to_owned(), said.iter().map(digits).sum::<f64>().max(0.0));
    Ok((figures, said))
}

fn ab(cell: &Cell, lane: &Lane) -> Vec<String> {
    let mut words: Vec<String> = ["ab", "-q", "-n", "100000", "-c"].map(str::to_owned).into();
    words.extend([cell.connections.to_string(), url(cell, lane)]);
    words
}

fn read_ab(text: &str) -> Result<(Figures, Vec<String>)> {
    let mut figures = Figures::new();
    figures.insert("requests_per_s".to_owned(), number_behind(text, "Requests per second:")?);
    let failed = number_behind(text, "Failed requests:")?;
    let percentile = |label: &str| -> Result<f64> { Ok(number_behind(text, label)? * 1e3) };
    figures.insert("p50_us".to_owned(), percentile("\n  50%")?);
    figures.insert("p99_us".to_owned(), percentile("\n  99%")?);
    figures.insert("errors".to_owned(), failed);
    ensure!(text.contains("Complete requests:"), "no report of ab's:\n{text}");
    Ok((figures, if failed > 0.0 { vec![format!("ab: {failed} requests failed")] } else { Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_of_wrk_is_read() {
        let text = "  Latency Distribution\n     50%  391.00us\n     99%    1.50ms\n  810456 requests in 5.10s, 210.96MB read\n  \
                    Socket errors: connect 0, read 3, write 0, timeout 4\n  Non-2xx or 3xx responses: 7\nRequests/sec: 158912.62\n";
        let (figures, said) = read_wrk(text).unwrap();
        assert_eq!((figures["p50_us"], figures["p99_us"], figures["requests_per_s"]), (391.0, 1500.0, 158_912.62));
        assert_eq!((figures["errors"], said.len()), (14.0, 2));
        assert!(read_wrk("nothing").is_err());
    }

    #[test]
    fn a_report_of_ab_is_read() {
        let text = "Complete requests:      100000\nFailed requests:        2\nRequests per second:    20123.45 [#/sec] (mean)\n\
                    Percentage of the requests served within a certain time (ms)\n  50%     48\n  99%     71\n";
        let (figures, said) = read_ab(text).unwrap();
        assert_eq!((figures["requests_per_s"], figures["errors"], figures["p99_us"]), (20_123.45, 2.0, 71_000.0));
        assert_eq!(said.len(), 1);
    }

    #[test]
    fn what_the_light_client_says_is_read() {
        let times = json!({"count": 5, "p50": 10, "p99": 20, "p999": 30});
        let mut value = json!({"requests_per_s": 1000.0, "bytes_per_s": 2e6, "errors_all": 1, "cpu_s": 1.0, "seconds": 2.0,
            "offered_per_s": null, "unsent": 0, "latency_us": times, "corrected_latency_us": null, "from_us": 7,
            "idle": {"wanted": 9, "held": 8}, "said": ["no"]});
        let (figures, said, from, until) = read_light(&value).unwrap();
        assert_eq!((figures["p99_us"], figures["megabytes_per_s"], figures["client_cores"]), (20.0, 2.0, 0.5));
        assert_eq!(
            (figures["idle_missing"], figures["errors"], figures.contains_key("offered_per_s")),
            (1.0, 1.0, false)
        );
        assert_eq!((said.len(), from.micros(), until.micros()), (1, 7, 2_000_007));
        value["offered_per_s"] = json!(3000.0);
        value["corrected_latency_us"] = json!({"count": 5, "p50": 11, "p99": 21, "p999": 31});
        assert_eq!(read_light(&value).unwrap().0["p99_us"], 21.0);
    }
}
