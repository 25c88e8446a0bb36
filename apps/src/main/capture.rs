//! `--capture FILE` and `--capture-filter EXPR`.

use anyhow::bail;
use khamsin_drivers::capture::{Filter, Target};
use rustix::fs::{FileType, Stat, fstat, stat};
use std::io::stdout;
use std::path::{Path, PathBuf};

/// What is captured, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaptureTo {
    pub(crate) path: PathBuf,
    /// An expression of pcap-filter(7).
    pub(crate) filter: Option<String>,
}

impl CaptureTo {
    /// Checks what was typed.
    ///
    /// # Errors
    /// The expression is wrong, or this khamsin cannot read expressions; in a sentence.
    pub(crate) fn new(path: Option<&Path>, filter: Option<&str>) -> Result<Option<CaptureTo>, String> {
        filter.map(compile).transpose()?;
        Ok(path.map(|path| CaptureTo { path: path.into(), filter: filter.map(Into::into) }))
    }

    /// Makes the file.
    ///
    /// # Errors
    /// It cannot be written, or is where the ready line goes; in a sentence.
    pub(crate) fn open(&self) -> anyhow::Result<Target> {
        // A device (a terminal, /dev/null) is no file that could be spoiled.
        let is_device = |s: &Stat| FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice;
        let id = |s: Stat| (!is_device(&s)).then_some((s.st_dev, s.st_ino));
        if let (Ok(path), Ok(output)) = (stat(&self.path), fstat(stdout()))
            && id(path).is_some_and(|path| Some(path) == id(output))
        {
            bail!(
                "wanted to capture into {}, but that is standard output, which has the ready line; give another file",
                self.path.display()
            );
        }
        let filter = self.filter.as_deref().map(|text| compile(text).map(|filter| (text.to_owned(), filter)));
        Ok(Target::create(&self.path, filter.transpose().map_err(anyhow::Error::msg)?)?)
    }
}

/// libpcap's judgement of frames.
#[cfg(feature = "capture-filter")]
fn compile(expression: &str) -> Result<Filter, String> {
    let wrong = |error: pcap::Error| {
        format!("--capture-filter `{expression}` is not a filter ({error}); pcap-filter(7) says what can be written")
    };
    let program = pcap::Capture::dead(pcap::Linktype::ETHERNET).and_then(|c| c.compile(expression, true));
    let program = program.map_err(wrong)?;
    Ok(Box::new(move |frame| program.filter(frame)))
}

#[cfg(not(feature = "capture-filter"))]
fn compile(_: &str) -> Result<Filter, String> {
    Err("--capture-filter needs a khamsin built with libpcap: `cargo build --release --features capture-filter` (Debian: \
         libpcap-dev); without it, capture everything and filter afterwards with `tcpdump -r FILE EXPR`"
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_alone_captures_everything() {
        let to = CaptureTo::new(Some(Path::new("/tmp/a.pcapng")), None);
        assert_eq!(to, Ok(Some(CaptureTo { path: "/tmp/a.pcapng".into(), filter: None })));
        assert_eq!(CaptureTo::new(None, None), Ok(None));
    }

    #[cfg(feature = "capture-filter")]
    #[test]
    fn filters_are_tcpdumps() {
        let mut port_80 = compile("tcp port 80").unwrap();
        let mut frame = vec![0; 54];
        frame[12] = 8;
        (frame[14], frame[23], frame[37]) = (0x45, 6, 80);
        assert!(port_80(&frame));
        frame[37] = 81;
        assert!(!port_80(&frame));
        let said = CaptureTo::new(None, Some("tcp prt 80")).unwrap_err();
        assert!(said.contains("tcp prt 80") && said.contains(';'), "{said}");
    }

    #[cfg(not(feature = "capture-filter"))]
    #[test]
    fn without_the_feature_the_flag_says_how_to_get_it() {
        assert!(CaptureTo::new(None, Some("tcp")).unwrap_err().contains("--features capture-filter"));
    }
}
