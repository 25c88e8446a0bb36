//! khamsin beside Linux over the same impaired link: downloads, uploads and short flows through a middlebox.
//!
//! Both sides serve the same files with the same HTTP application: once over khamsin's stack, once over the kernel's TCP
//! (`--backend epoll`, CUBIC). The client is the kernel's TCP both times. A frame's fate depends on the seed, the direction
//! and the frame's number; both sides meet the same fates, in turns.

mod cell;
mod client;
mod kernel;
mod lane;
mod table;

use anyhow::{Context, Result, ensure};
use cell::Cell;
use clap::ValueEnum;
use khamsin_tools::rung::Rung;
use lane::Lane;
use std::path::PathBuf;
use std::time::Duration;
use table::{Pair, Table};

#[derive(clap::Args, Debug)]
pub(crate) struct ImpairedOptions {
    /// Seeds of each cell; a run of each side for each of them
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only cells whose names contain one of these, separated by commas
    #[arg(long, value_delimiter = ',')]
    cells: Vec<String>,
    /// Seconds of each download
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// What is compared with Linux; `epoll` is Linux once more and shows how exact the comparison is
    #[arg(long, value_enum, default_value_t)]
    backend: Side,
    /// Where to write every single run as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What runs beside Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Side {
    #[default]
    AfPacket,
    AfXdpGeneric,
    AfXdpNative,
    Epoll,
}

impl Side {
    fn rung(self) -> Rung {
        match self {
            Side::AfPacket => Rung::Packet,
            Side::AfXdpGeneric => Rung::XdpGeneric,
            Side::AfXdpNative => Rung::XdpNative,
            Side::Epoll => Rung::EpollLevel,
        }
    }
}

/// Measures the cells asked for and prints the table.
///
/// # Errors
/// A side fails its client, or nothing fits `--cells`.
pub(crate) fn measure(options: &ImpairedOptions) -> Result<()> {
    // Inherited by both servers and both clients alike; without the right to it everything stays as it is.
    let _ = rustix::process::nice(-15);
    let wanted = |cell: &Cell| options.cells.is_empty() || options.cells.iter().any(|part| cell.name.contains(part));
    let cells: Vec<Cell> = Cell::all().into_iter().filter(wanted).collect();
    let all = Cell::all().iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", ");
    ensure!(!cells.is_empty(), "no cell is named like that; there are {all}");
    let folder = tempfile::Builder::new().prefix("khamsin-impaired-").tempdir()?;
    lane::write_files(folder.path())?;
    let mut own = Lane::open(options.backend.rung(), folder.path())?;
    let mut linux = Lane::open(Rung::EpollLevel, folder.path())?;
    let mut table = Table::new();
    let time = Duration::from_secs(options.seconds);
    for cell in cells {
        let mut pairs = Vec::new();
        for seed in options.first_seed..options.first_seed + options.seeds {
            let told = |side: &str| format!("{}, seed {seed}, {side}", cell.name);
            let own = own.sample(&cell, seed, time).with_context(|| told("khamsin"))?;
            let linux = linux.sample(&cell, seed, time).with_context(|| told("Linux"))?;
            pairs.push(Pair { seed, own, linux });
        }
        table.add(cell, pairs)?;
        // After each cell: a long run that is broken off leaves what it has found.
        table.save(options.json.as_deref())?;
    }
    table.print()?;
    Ok(())
}
