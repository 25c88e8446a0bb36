//! The khamsin binary, running in a namespace.

use crate::bed::Bed;
use crate::command::{is_installed, pid_of};
use crate::deadline::wait_for;
use crate::netns::Netns;
use crate::rung::Rung;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

/// How long a server may take to say that it is ready. Native XDP on veth re-binds within a second.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// What the ready line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready {
    /// The rung taken.
    pub rung: String,
    /// The addresses served.
    pub addresses: Vec<IpAddr>,
    /// Applications and their ports.
    pub listen: Vec<(String, u16)>,
    /// Where to look with a browser.
    pub url: String,
}

impl Ready {
    /// Reads `khamsin ready rung=RUNG address=IP[,IP6] listen=http:80[,echo:7] url=URL`.
    ///
    /// # Errors
    /// The line is another one; the contract is exact.
    pub fn parse(line: &str) -> Result<Ready> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["khamsin", "ready", rung, address, listen, url] = words[..] else { bail!("not a ready line: `{line}`") };
        let value = |word: &str, key: &str| {
            word.strip_prefix(key).map(str::to_owned).ok_or_else(|| anyhow!("no `{key}` where it belongs: `{line}`"))
        };
        let addresses = value(address, "address=")?.split(',').map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        let listen = value(listen, "listen=")?
            .split(',')
            .map(|pair| {
                let (app, port) = pair.split_once(':').ok_or_else(|| anyhow!("no port in `{pair}`: `{line}`"))?;
                Ok((app.to_owned(), port.parse()?))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Ready { rung: value(rung, "rung=")?, addresses, listen, url: value(url, "url=")? })
    }
}

/// A server. Dropping it kills it.
pub struct Server {
    child: Child,
    /// What it said when it was ready.
    pub ready: Ready,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts `khamsin serve` with all applications and the files of `root` on `rung`.
    ///
    /// # Errors
    /// It does not get ready in time, or stands on another rung.
    pub fn on(rung: Rung, bed: &Bed, root: &Path) -> Result<Server> {
        Server::with(rung, bed, root, &[])
    }

    /// As [`Server::on`], with more options.
    ///
    /// # Errors
    /// It does not get ready in time, or stands on another rung.
    pub fn with(rung: Rung, bed: &Bed, root: &Path, more: &[&str]) -> Result<Server> {
        let mut options: Vec<String> =
            ["serve", "--app", "echo:7", "--app", "http:80", "--app", "sink:9", "--root"].map(str::to_owned).into();
        options.push(root.to_string_lossy().into_owned());
        options.extend(rung.options());
        options.extend(more.iter().map(|o| (*o).to_owned()));
        let server = Server::start(&bed.server, &options)?;
        if server.ready.rung != rung.word() {
            bail!("the server stands on {}, not on {rung}: {}", server.ready.rung, server.log());
        }
        Ok(server)
    }

    /// Starts `khamsin` with `options` in `netns` and waits for its ready line.
    ///
    /// # Errors
    /// It ends, or says something else, or nothing in time; with what it logged.
    pub fn start(netns: &Netns, options: &[String]) -> Result<Server> {
        // The server ends with the thread that started it, so that not even a killed test leaves one behind.
        let mut command = netns.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary()?);
        command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start khamsin")?;
        let log = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            keep_log(stderr, Arc::clone(&log));
        }
        let (first_line, lines) = mpsc::sync_channel(1);
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stdout);
                let mut line = String::new();
                let read = reader.read_line(&mut line);
                drop(first_line.send(read.map(|_| line)));
                // Nothing else belongs there, but a full pipe must not stop the server.
                drop(std::io::copy(&mut reader, &mut std::io::sink()));
            });
        }
        // From here on an error ends the child.
        let ready = Ready { rung: String::new(), addresses: Vec::new(), listen: Vec::new(), url: String::new() };
        let mut server = Server { child, ready, log };
        let shown = options.join(" ");
        let line = match lines.recv_timeout(START_LIMIT) {
            Ok(line) => line?,
            Err(_) => bail!("`khamsin {shown}` is not ready after {START_LIMIT:?}; log: {}", server.log()),
        };
        if line.is_empty() {
            let status = server.wait(Duration::from_secs(5))?;
            bail!("`khamsin {shown}` ended before it was ready: {status}; log: {}", server.log());
        }
        server.ready = Ready::parse(line.trim_end_matches('\n'))?;
        Ok(server)
    }

    /// Everything it wrote to its standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(pid_of(&self.child), signal).context("signal khamsin")
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The system lost sight of it.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for("khamsin's end", limit, || Ok(self.child.try_wait()?))
    }

    /// Ends it with SIGTERM and wants exit code 0.
    ///
    /// # Errors
    /// It does not end in time, or with another code; with its log.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status =
            self.wait(Duration::from_secs(15)).with_context(|| format!("after SIGTERM; log: {}", self.log()))?;
        if !status.success() {
            bail!("after SIGTERM: {status}; log: {}", self.log());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn keep_log(mut stderr: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut piece = [0u8; 4096];
        while let Ok(n @ 1..) = stderr.read(&mut piece) {
            if let Ok(mut log) = log.lock() {
                // Bounded: a server that logs without end must not take the machine's memory.
                if log.len() < 1 << 20 {
                    log.push_str(&String::from_utf8_lossy(&piece[..n]));
                }
            }
        }
    });
}

/// The server under test: `KHAMSIN_BIN`, or what cargo builds beside this program.
///
/// # Errors
/// It cannot be built.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| find_binary().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KHAMSIN_BIN") {
        let path = PathBuf::from(path);
        return path.canonicalize().with_context(|| format!("KHAMSIN_BIN is {}, which is not there", path.display()));
    }
    // A test is target/PROFILE/deps/NAME-HASH, a tool target/PROFILE/NAME; the server is target/PROFILE/khamsin.
    let me = std::env::current_exe()?;
    let mut profile = me.parent().context("this program does not lie in a target folder")?;
    if profile.ends_with("deps") {
        profile = profile.parent().context("this program does not lie in a target folder")?;
    }
    let name = match profile.file_name().and_then(|n| n.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => bail!("this program does not lie in a target folder"),
    };
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "-p", "khamsin", "--profile", name]).arg("--target-dir");
    build.arg(profile.parent().context("this program does not lie in a target folder")?);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    crate::command::run(build, Duration::from_secs(900))?.ok().context("build the server under test")?;
    Ok(profile.join("khamsin"))
}

/// Why a test that needs `programs` cannot run, if one of them is missing.
pub fn missing(programs: &[&str]) -> Option<String> {
    let gone: Vec<&str> = programs.iter().copied().filter(|p| !is_installed(p)).collect();
    (!gone.is_empty()).then(|| format!("not installed: {} (tests/run installs them as root)", gone.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_lines_are_taken_apart() {
        let line =
            "khamsin ready rung=af-xdp-native address=198.18.0.2,fd00::2 listen=http:80,echo:7 url=http://198.18.0.2/";
        let ready = Ready::parse(line).unwrap();
        assert_eq!((ready.rung.as_str(), ready.addresses.len()), ("af-xdp-native", 2));
        assert_eq!(ready.listen, [("http".to_owned(), 80), ("echo".to_owned(), 7)]);
        for wrong in
            ["khamsin ready", "ready rung=tap address=::1 listen=http:80 url=x", &line.replace("listen", "ports")]
        {
            assert!(Ready::parse(wrong).is_err(), "{wrong}");
        }
    }
}
