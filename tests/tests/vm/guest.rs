//! The guest: a row of `vm/matrix`, and a serial line to a shell in it.

use anyhow::{Context, Result, bail, ensure};
use khamsin_tests::server::Ready;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// khamsin's addresses on the guest's network card.
pub(crate) const STACK_V4: &str = "198.18.0.2";
pub(crate) const STACK_V6: &str = "fd00:18::2";
/// The guest's kernel on the same card.
pub(crate) const KERNEL_V4: &str = "198.18.0.9";

/// Longest that a command in the guest may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A guest that has booted.
pub(crate) struct Guest {
    agent: UnixStream,
    /// Its row of the matrix.
    pub(crate) row: String,
    /// The rung that it must be on.
    pub(crate) rung: String,
    /// A word of the reason why not higher, for each higher rung.
    pub(crate) why: Vec<(String, String)>,
    /// Options of its server that the row names.
    pub(crate) options: String,
    folder: PathBuf,
    pages: PathBuf,
}

/// What a command in the guest said.
pub(crate) struct Said {
    /// Its exit code.
    pub(crate) code: i32,
    /// Both of its outputs.
    pub(crate) text: String,
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set; vm/run sets it"))
}

impl Guest {
    /// The guest that `vm/run` has booted.
    pub(crate) fn connect() -> Result<Guest> {
        let folder = PathBuf::from(variable("KHAMSIN_VM_FOLDER")?);
        let agent = UnixStream::connect(folder.join("agent")).context("connect to the guest's serial line")?;
        agent.set_read_timeout(Some(COMMAND_LIMIT))?;
        agent.set_write_timeout(Some(COMMAND_LIMIT))?;
        let why = variable("KHAMSIN_VM_WHY")?;
        let why = why.split("; ").filter_map(|pair| pair.split_once('=')).map(|(r, w)| (r.to_owned(), w.to_owned()));
        let mut guest = Guest {
            agent,
            row: variable("KHAMSIN_VM_ROW")?,
            rung: variable("KHAMSIN_VM_RUNG")?,
            why: why.collect(),
            options: variable("KHAMSIN_VM_OPTIONS")?,
            pages: variable("KHAMSIN_VM_PAGES")?.into(),
            folder,
        };
        // What a kernel says of its own on a serial line that just opened is no answer.
        guest.ok("true")?;
        Ok(guest)
    }

    /// Runs a line of shell in the guest.
    pub(crate) fn sh(&mut self, line: &str) -> Result<Said> {
        ensure!(!line.contains('\n'), "the guest takes one line at a time");
        self.agent.write_all(format!("{line}\n").as_bytes()).context("write to the guest's serial line")?;
        let (mut heard, mut piece) = (Vec::new(), [0u8; 4096]);
        loop {
            let n = self.agent.read(&mut piece).with_context(|| format!("the guest does not answer `{line}`"))?;
            ensure!(n > 0, "the guest is gone at `{line}`");
            heard.extend_from_slice(&piece[..n]);
            let text = String::from_utf8_lossy(&heard);
            let Some((text, code)) = text.rsplit_once("@@") else { continue };
            let Some(code) = code.strip_suffix('\n') else { continue };
            let code = code.trim().parse().with_context(|| format!("`{line}` ended with {code}"))?;
            return Ok(Said { code, text: text.to_owned() });
        }
    }

    /// Runs a line of shell in the guest and wants exit code 0.
    pub(crate) fn ok(&mut self, line: &str) -> Result<String> {
        let said = self.sh(line)?;
        if said.code != 0 {
            bail!("in the guest `{line}` ended with {}: {}", said.code, said.text);
        }
        Ok(said.text)
    }

    /// What the server called `name` has logged.
    pub(crate) fn log(&mut self, name: &str) -> String {
        self.sh(&format!("tail -c 6000 /run/{name}.log")).map_or_else(|e| format!("{e:#}"), |said| said.text)
    }

    /// Wants the server called `name` to run still, without a panic.
    pub(crate) fn log_must_be_calm(&mut self, name: &str) -> Result<()> {
        let log = self.log(name);
        ensure!(self.is_running(name)? && !log.contains("panicked"), "{name}: {log}");
        Ok(())
    }

    /// The options of the server on the guest's network card.
    pub(crate) fn main_options(&self) -> String {
        format!("--interface eth0 --address {STACK_V4}/24 --address {STACK_V6}/64 {}", self.options)
    }

    /// Starts the server called `name` and wants its ready line; `before` goes in front of the command.
    pub(crate) fn start(&mut self, name: &str, before: &str, options: &str) -> Result<Ready> {
        let said = self.ok(&format!("AS='{before}' serve {name} {options}"))?;
        Ready::parse(said.lines().find(|l| l.starts_with("khamsin ready")).unwrap_or(&said))
    }

    /// Ends the server called `name` by SIGTERM and wants exit code 0.
    pub(crate) fn stop(&mut self, name: &str) -> Result<()> {
        self.ok(&format!("kill $(cat /run/{name}.pid)"))?;
        let code = self.ended(name)?;
        ensure!(code == "0", "{name} ended with {code}: {}", self.log(name));
        Ok(())
    }

    /// Waits for the end of the server called `name`: its exit code.
    pub(crate) fn ended(&mut self, name: &str) -> Result<String> {
        let wait = format!(
            "for i in $(seq 300); do [ -e /run/{name}.code ] && break; usleep 50000; done; cat /run/{name}.code"
        );
        Ok(self.ok(&wait).with_context(|| format!("{name} has not ended"))?.trim().to_owned())
    }

    /// Whether the server called `name` runs.
    pub(crate) fn is_running(&mut self, name: &str) -> Result<bool> {
        Ok(self.sh(&format!("[ ! -e /run/{name}.code ] && kill -0 $(cat /run/{name}.pid)"))?.code == 0)
    }

    /// Wants the server on the network card to run; starts it where a failed case has left none.
    pub(crate) fn serving(&mut self) -> Result<()> {
        if !self.is_running("main")? {
            let options = self.main_options();
            self.start("main", "", &options)?;
        }
        Ok(())
    }

    /// The rung that the server on the network card has taken.
    pub(crate) fn rung_taken(&mut self) -> Result<String> {
        Ok(Ready::parse(self.ok("cat /run/main.ready")?.trim())?.rung)
    }

    /// Wants it to be the one that the matrix names.
    pub(crate) fn on_the_right_rung(&mut self) -> Result<()> {
        let rung = self.rung_taken()?;
        ensure!(rung == self.rung, "the server of {} is on {rung} instead of {}", self.row, self.rung);
        Ok(())
    }

    /// What a page that the guest serves must be.
    pub(crate) fn page(&self, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.pages.join(name))?)
    }

    /// Adds a figure to the table.
    pub(crate) fn figure(&self, key: &str, value: impl std::fmt::Display) -> Result<()> {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.folder.join("figures"))?;
        Ok(writeln!(file, "{key} {value}")?)
    }
}
