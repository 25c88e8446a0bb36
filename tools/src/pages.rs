//! Files to serve, and bytes that say of themselves where they belong.

use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `len` bytes of which no stretch repeats soon: a byte that is lost, doubled or moved shows. The same for the same `seed`.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64: quick, and its period is far longer than any transfer.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A folder of files to serve: `index.html` (text), `small` (64 bytes), `page` (8,046 bytes), `big` (10 MB), `sub/a.txt`.
pub struct Pages(TempDir);

/// Length of `big`, bytes: no multiple of anything.
pub const BIG: usize = 10_000_019;

impl Pages {
    /// Writes the files.
    ///
    /// # Errors
    /// No room in the folder for temporary files.
    pub fn new() -> Result<Pages> {
        let folder = tempfile::Builder::new().prefix("khamsin-pages-").tempdir()?;
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes);
        put("index.html", b"<!doctype html>\n<title>khamsin</title>\n<p>A desert wind.</p>\n")?;
        put("small", &pattern(64, 1))?;
        put("page", &pattern(8046, 2))?;
        put("big", &pattern(BIG, 3))?;
        put("empty", b"")?;
        fs::create_dir(folder.path().join("sub"))?;
        put("sub/a.txt", b"below\n")?;
        Ok(Pages(folder))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of one file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What one file holds.
    ///
    /// # Errors
    /// There is no such file.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.file(name))?)
    }
}
