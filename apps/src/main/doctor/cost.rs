//! What connections cost in memory, from the sums that the stack allocates by.

use crate::apps::Apps;
use khamsin_stack::limits::Limits;
use khamsin_stack::shard::{Part, cost};
use std::io::{self, Write};

/// Bounds for which the table is made.
const BOUNDS: [(&str, usize); 4] = [("10k", 10_000), ("100k", 100_000), ("1M", 1_000_000), ("10M", 10_000_000)];
const MIB: f64 = (1 << 20) as f64;

/// Prints the table: one column for each bound, all in one worker.
pub(super) fn tell(out: &mut impl Write) -> io::Result<()> {
    let columns: Vec<Vec<Part>> = BOUNDS.iter().map(|&(_, n)| cost::<Apps>(&Limits::with_parking(n))).collect();
    writeln!(out, "memory that one worker sets aside, MiB, by --connections; only what is used becomes resident")?;
    write!(out, "{:<40} {:>8}", "", "B each")?;
    BOUNDS.iter().try_for_each(|(name, _)| write!(out, " {name:>9}"))?;
    writeln!(out)?;
    for (row, part) in columns[0].iter().enumerate() {
        write!(out, "{:<40} {:>8}", part.name, part.each)?;
        for column in &columns {
            write!(out, " {:>9.1}", column[row].bytes() as f64 / MIB)?;
        }
        writeln!(out)?;
    }
    write!(out, "{:<40} {:>8}", "all", "")?;
    for column in &columns {
        write!(out, " {:>9.1}", column.iter().map(Part::bytes).sum::<usize>() as f64 / MIB)?;
    }
    writeln!(out)?;
    let each =
        |idle: fn(&Part) -> bool| columns[0].iter().filter(|part| idle(part)).map(|part| part.each).sum::<usize>();
    let (v4, flow) = (each(|part| part.idle), each(|part| part.name == "flow table"));
    let v6 = flow + each(|part| part.name.ends_with("IPv6"));
    writeln!(
        out,
        "\nan idle connection uses {v4} B over IPv4 and {v6} B over IPv6: its record and its place in the flow table"
    )
}
