//! What is served from memory: immutable snapshots, and the place where a new one replaces the old.

use super::{INLINE_MAX, builtin, date};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Signature {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) len: u64,
    pub(crate) modified_ns: i128,
}

/// A file in memory and the head of the answer with it.
#[derive(Debug)]
pub struct File {
    name: String,
    signature: Signature,
    bytes: Arc<[u8]>,
    modified: Option<u64>,
    etag: String,
    /// The fields of a 200 response from Content-Type on, the empty line, and the body where it is short.
    block: Box<[u8]>,
    /// Where in `block` Content-Type ends, Last-Modified starts, and the empty line starts.
    marks: [u32; 3],
}

impl File {
    /// A file called `name` below the root; `modified` is in seconds since 1970.
    pub(crate) fn new(name: String, bytes: Arc<[u8]>, modified: Option<u64>, signature: Signature) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let etag = format!("\"{:016x}-{:x}\"", hasher.finish(), bytes.len());
        let mut block = format!("Content-Type: {}\r\n", content_type(&name)).into_bytes();
        let typed = block.len();
        block.extend_from_slice(format!("Content-Length: {}\r\n", bytes.len()).as_bytes());
        let sized = block.len();
        if let Some(modified) = modified {
            block.extend_from_slice(format!("Last-Modified: {}\r\n", date::http_date(modified)).as_bytes());
        }
        block.extend_from_slice(format!("ETag: {etag}\r\nAccept-Ranges: bytes\r\n").as_bytes());
        let marks = [typed, sized, block.len()].map(|at| at as u32);
        block.extend_from_slice(b"\r\n");
        if bytes.len() <= INLINE_MAX {
            block.extend_from_slice(&bytes);
        }
        File { name, signature, bytes, modified, etag, block: block.into(), marks }
    }

    /// The name below the root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The content.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub(crate) fn etag(&self) -> &str {
        &self.etag
    }

    /// The last change, in seconds since 1970.
    pub(crate) fn modified(&self) -> Option<u64> {
        self.modified
    }

    pub(crate) fn signature(&self) -> Signature {
        self.signature
    }

    /// Whether the body lies in [`block`](Self::block).
    pub(crate) fn is_inline(&self) -> bool {
        self.bytes.len() <= INLINE_MAX
    }

    /// The fields of a 200 response from Content-Type on, the empty line, and the body where it is short.
    pub(crate) fn block(&self) -> &[u8] {
        &self.block
    }

    /// The fields of a 200 response from Content-Type on, and the empty line.
    pub(crate) fn head(&self) -> &[u8] {
        &self.block[..self.marks[2] as usize + 2]
    }

    /// The Content-Type field.
    pub(crate) fn type_field(&self) -> &[u8] {
        &self.block[..self.marks[0] as usize]
    }

    /// The fields Last-Modified, ETag and Accept-Ranges.
    pub(crate) fn validator_fields(&self) -> &[u8] {
        &self.block[self.marks[1] as usize..self.marks[2] as usize]
    }
}

fn content_type(name: &str) -> String {
    let mime = mime_guess::from_path(name).first_or_octet_stream();
    let is_text = mime.type_() == mime_guess::mime::TEXT
        || mime.suffix() == Some(mime_guess::mime::XML)
        || ["application/javascript", "application/json", "application/xml"].contains(&mime.essence_str());
    if is_text { format!("{}; charset=utf-8", mime.essence_str()) } else { mime.to_string() }
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The file of this index.
    File(u32),
    /// A directory with an index, asked for without the `/` at its end.
    Directory,
}

/// Everything that is served, at one moment. A path is looked up in a map of what was loaded; no request ever touches
/// the file system.
#[derive(Debug, Default)]
pub struct Snapshot {
    files: Vec<Arc<File>>,
    places: HashMap<Box<[u8]>, Place, BuildHasherDefault<PathHasher>>,
}

impl Snapshot {
    /// The snapshot that shows `files`: each at its name, and `index.html` at its folder too.
    pub(crate) fn new(files: Vec<(Vec<u8>, Arc<File>)>) -> Self {
        let mut snapshot = Snapshot::default();
        for (path, file) in files {
            let index = snapshot.files.len() as u32;
            if let Some(folder) = path.strip_suffix(b"index.html").filter(|folder| folder.ends_with(b"/")) {
                snapshot.places.insert(folder.into(), Place::File(index));
                if folder.len() > 1 {
                    snapshot.places.insert(folder[..folder.len() - 1].into(), Place::Directory);
                }
            }
            snapshot.places.insert(path.into(), Place::File(index));
            snapshot.files.push(file);
        }
        snapshot
    }

    /// Looks up a decoded path.
    #[inline]
    pub(crate) fn place(&self, path: &[u8]) -> Option<Place> {
        self.places.get(path).copied()
    }

    /// The files, in the order of their indices.
    pub fn files(&self) -> &[Arc<File>] {
        &self.files
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }
}

/// Hashes paths. Keys are chosen by whoever owns the files, never by a peer, so that speed is all that counts.
#[derive(Default)]
pub(crate) struct PathHasher(u64);

impl Hasher for PathHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        // An odd constant with well-spread bits: the fractional part of the golden ratio.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut hash = self.0 ^ bytes.len() as u64;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(SPREAD).rotate_left(29);
        }
        let tail = rest.iter().fold(0u64, |tail, &byte| tail << 8 | u64::from(byte));
        self.0 = (hash ^ tail).wrapping_mul(SPREAD).rotate_left(29);
    }

    #[inline]
    fn write_usize(&mut self, _len: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ self.0 >> 32
    }
}

/// The snapshot that is served now. Cheap to clone; every shard has one, and the loader.
#[derive(Clone, Debug)]
pub struct Site(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    generation: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
}

impl Site {
    /// A site that shows `snapshot`.
    pub fn new(snapshot: Snapshot) -> Self {
        Site(Arc::new(Shared { generation: AtomicU64::new(1), current: Mutex::new(Arc::new(snapshot)) }))
    }

    /// What is served without a root: one page that says what this is.
    pub fn welcome() -> Self {
        let bytes: Arc<[u8]> = builtin::WELCOME.as_bytes().into();
        let file = File::new("index.html".into(), bytes, None, Signature::default());
        Site::new(Snapshot::new(vec![(b"/index.html".to_vec(), Arc::new(file))]))
    }

    /// Counts the snapshots so far; one relaxed load, made for every burst.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The snapshot that is served now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the snapshot and gives the former one back. Each shard takes the new one up at its next request.
    pub fn replace(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        let former = core::mem::replace(&mut *current, Arc::new(snapshot));
        self.0.generation.fetch_add(1, Ordering::Release);
        former
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, len: usize) -> Arc<File> {
        Arc::new(File::new(name.into(), vec![b'x'; len].into(), Some(784_111_777), Signature::default()))
    }

    #[test]
    fn heads_are_prebuilt() {
        let small = file("a.html", 3);
        let text = String::from_utf8(small.block().to_vec()).unwrap();
        let tag = small.etag();
        assert_eq!(
            text,
            format!(
                "Content-Type: text/html; charset=utf-8\r\nContent-Length: 3\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 \
                 GMT\r\nETag: {tag}\r\nAccept-Ranges: bytes\r\n\r\nxxx"
            )
        );
        assert!(small.head().ends_with(b"bytes\r\n\r\n"));
        assert!(small.type_field().ends_with(b"utf-8\r\n"));
        assert!(small.validator_fields().starts_with(b"Last-Modified"));
        assert!(small.validator_fields().ends_with(b"bytes\r\n"));
        let large = file("a.html", INLINE_MAX + 1);
        assert_eq!(large.block(), large.head());
    }

    #[test]
    fn content_types() {
        let table = [
            ("x.html", "text/html; charset=utf-8"),
            ("x.css", "text/css; charset=utf-8"),
            ("x.js", "text/javascript; charset=utf-8"),
            ("x.json", "application/json; charset=utf-8"),
            ("x.svg", "image/svg+xml; charset=utf-8"),
            ("x.png", "image/png"),
            ("x.wasm", "application/wasm"),
            ("x", "application/octet-stream"),
        ];
        for (name, want) in table {
            assert_eq!(content_type(name), want, "{name}");
        }
    }

    #[test]
    fn folders_show_their_index() {
        let snapshot = Snapshot::new(vec![
            (b"/index.html".to_vec(), file("index.html", 1)),
            (b"/a/index.html".to_vec(), file("a/index.html", 1)),
            (b"/a/notindex.html".to_vec(), file("a/notindex.html", 1)),
        ]);
        let table: [(&str, Option<Place>); 9] = [
            ("/", Some(Place::File(0))),
            ("/index.html", Some(Place::File(0))),
            ("/a", Some(Place::Directory)),
            ("/a/", Some(Place::File(1))),
            ("/a/index.html", Some(Place::File(1))),
            ("/a/notindex.html", Some(Place::File(2))),
            ("/a/not", None),
            ("", None),
            ("/a//", None),
        ];
        for (path, want) in table {
            assert_eq!(snapshot.place(path.as_bytes()), want, "{path}");
        }
    }

    #[test]
    fn a_replaced_snapshot_is_seen_by_its_generation() {
        let site = Site::welcome();
        let before = site.generation();
        let former = site.replace(Snapshot::default());
        assert_eq!(former.files().len(), 1);
        assert_ne!(site.generation(), before);
        assert!(site.snapshot().files().is_empty());
    }
}
