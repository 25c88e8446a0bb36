//! Loads a folder into memory and watches it, on a thread of its own: the packet loop never waits for a disk.

use super::site::{File, Signature, Site, Snapshot};
use rustix::fs::OFlags;
use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What to serve, how often to look, and how much to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteConfig {
    /// The folder.
    pub root: PathBuf,
    /// Time between two looks at the folder; zero: only when told to ([`Loader::reload_now`]).
    pub reload: Duration,
    /// Most bytes of all files.
    pub total_bytes_max: u64,
    /// Most bytes of one file.
    pub file_bytes_max: u64,
    /// Most files.
    pub files_max: usize,
    /// Most folders below one another.
    pub depth_max: usize,
}

impl SiteConfig {
    /// The bounds that the server starts with, for the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        SiteConfig {
            root: root.into(),
            reload: Duration::from_secs(5),
            total_bytes_max: 1 << 30,
            file_bytes_max: 256 << 20,
            files_max: 65_536,
            depth_max: 16,
        }
    }
}

/// Why a folder is not served.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The root cannot be opened.
    #[error("the folder {} was to be served, but it cannot be read ({source}); name one that exists and that this user may read", path.display())]
    Unreadable {
        /// What was named.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The root is no folder.
    #[error("{} was to be served, but it is not a folder; name the folder that holds it", path.display())]
    NotAFolder {
        /// What was named.
        path: PathBuf,
    },
    /// The thread did not start.
    #[error("the thread that loads files did not start ({0}); raise the limit on threads")]
    Thread(io::Error),
}

enum Command {
    Reload,
    Stop,
}

/// The thread that keeps a [`Site`] up to date. It ends when this is dropped.
#[derive(Debug)]
pub struct Loader {
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Loads the folder, then watches it from a thread.
    ///
    /// # Errors
    /// The folder does not exist, is none, or cannot be read; or no thread is to be had.
    pub fn start(config: SiteConfig) -> Result<(Site, Loader), SiteError> {
        let reload = config.reload;
        let mut scanner = Scanner::new(config)?;
        let site = Site::new(scanner.scan().unwrap_or_default());
        let (commands, inbox) = mpsc::channel();
        let watched = site.clone();
        let watch = move || {
            let mut retired: Vec<Arc<Snapshot>> = Vec::new();
            while wait(&inbox, reload) {
                if let Some(snapshot) = scanner.scan() {
                    retired.push(watched.replace(snapshot));
                }
                // The last owner of a snapshot frees it: let that be this thread and not a packet loop.
                retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
            }
        };
        let thread = std::thread::Builder::new().name("khamsin-site".into()).spawn(watch).map_err(SiteError::Thread)?;
        Ok((site, Loader { commands, thread: Some(thread) }))
    }

    /// Looks at the folder now (SIGHUP). Returns at once.
    pub fn reload_now(&self) {
        // A thread that is gone has nothing to reload.
        let _ = self.commands.send(Command::Reload);
    }

    /// Ends the thread and waits for it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for the time of the next scan. False: stop.
fn wait(inbox: &mpsc::Receiver<Command>, reload: Duration) -> bool {
    let told = if reload.is_zero() {
        inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
    } else {
        inbox.recv_timeout(reload)
    };
    matches!(told, Ok(Command::Reload) | Err(RecvTimeoutError::Timeout))
}

/// Looks at a folder again and again, and reads what changed.
#[derive(Debug)]
pub(crate) struct Scanner {
    config: SiteConfig,
    root: PathBuf,
    known: HashMap<Vec<u8>, Arc<File>>,
    skipped: HashSet<String>,
    scans: u64,
}

/// One look.
#[derive(Default)]
struct Look {
    files: HashMap<Vec<u8>, Arc<File>>,
    skipped: HashSet<String>,
    bytes: u64,
    /// Device and inode of the folders that the current one is in.
    ancestors: Vec<(u64, u64)>,
    changed: bool,
}

impl Scanner {
    pub(crate) fn new(config: SiteConfig) -> Result<Self, SiteError> {
        let root = fs::canonicalize(&config.root)
            .map_err(|source| SiteError::Unreadable { path: config.root.clone(), source })?;
        if !root.is_dir() {
            return Err(SiteError::NotAFolder { path: config.root });
        }
        if let Err(source) = fs::read_dir(&root) {
            return Err(SiteError::Unreadable { path: config.root, source });
        }
        Ok(Scanner { config, root, known: HashMap::new(), skipped: HashSet::new(), scans: 0 })
    }

    /// Looks at every file below the root and loads those that are new or changed. `None`: nothing changed.
    pub(crate) fn scan(&mut self) -> Option<Snapshot> {
        let mut look = Look::default();
        match fs::metadata(&self.root) {
            Ok(meta) => look.ancestors.push((meta.dev(), meta.ino())),
            Err(error) => {
                // An unmounted disk is no reason to stop serving what is in memory.
                if self.skipped.insert(format!("the root is gone: {error}")) {
                    tracing::warn!("the root {} is gone ({error}); serving what is in memory", self.root.display());
                }
                return None;
            }
        }
        self.folder(&self.root, &mut look);
        for gone in self.known.keys().filter(|path| !look.files.contains_key(*path)) {
            look.changed = true;
            tracing::info!("dropping {}", String::from_utf8_lossy(&gone[1..]));
        }
        for reason in look.skipped.difference(&self.skipped) {
            tracing::warn!("not serving {reason}");
        }
        (self.known, self.skipped) = (look.files, look.skipped);
        self.scans += 1;
        if self.scans == 1 {
            tracing::info!("serving {} files, {} bytes from {}", self.known.len(), look.bytes, self.root.display());
        }
        (look.changed || self.scans == 1).then(|| {
            let mut files: Vec<_> = self.known.iter().map(|(path, file)| (path.clone(), Arc::clone(file))).collect();
            files.sort_by(|a, b| a.0.cmp(&b.0));
            Snapshot::new(files)
        })
    }

    fn folder(&self, folder: &Path, look: &mut Look) {
        if look.ancestors.len() > self.config.depth_max {
            return look
                .skip(self.relative(folder), format!("it lies more than {} folders deep", self.config.depth_max));
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return look.skip(self.relative(folder), format!("it cannot be read ({error})")),
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        // Names cost memory too, whether they are served or not.
        let entries_max = 2 * self.config.files_max + 1000;
        for entry in entries {
            if paths.len() >= entries_max {
                look.skip(self.relative(folder), format!("it holds more than {entries_max} entries"));
                break;
            }
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => look.skip(self.relative(folder), format!("it cannot be read to its end ({error})")),
            }
        }
        // So that bounds always cut the same files off.
        paths.sort();
        for path in paths {
            self.entry(&path, look);
        }
    }

    fn entry(&self, path: &Path, look: &mut Look) {
        let name = path.file_name().map_or(&b""[..], OsStrExt::as_bytes);
        if name.starts_with(b".") && name != b".well-known" {
            return look.skip(self.relative(path), "its name starts with a dot".into());
        }
        match self.resolve(path) {
            Err(reason) => look.skip(self.relative(path), reason),
            Ok((_, meta)) if meta.is_dir() => {
                let identity = (meta.dev(), meta.ino());
                if look.ancestors.contains(&identity) {
                    return look.skip(self.relative(path), "it leads back to a folder that it lies in".into());
                }
                look.ancestors.push(identity);
                self.folder(path, look);
                look.ancestors.pop();
            }
            Ok((target, meta)) if meta.is_file() => self.file(path, &target, &meta, look),
            Ok(_) => look.skip(self.relative(path), "it is neither a file nor a folder".into()),
        }
    }

    /// Follows a symbolic link, but not out of the root.
    fn resolve(&self, path: &Path) -> Result<(PathBuf, Metadata), String> {
        let unreadable = |error: io::Error| format!("it cannot be read ({error})");
        let meta = fs::symlink_metadata(path).map_err(unreadable)?;
        if !meta.is_symlink() {
            return Ok((path.to_path_buf(), meta));
        }
        let target = fs::canonicalize(path).map_err(unreadable)?;
        if !target.starts_with(&self.root) {
            return Err("it is a link that leaves the root".into());
        }
        let meta = fs::symlink_metadata(&target).map_err(unreadable)?;
        Ok((target, meta))
    }

    fn file(&self, path: &Path, target: &Path, meta: &Metadata, look: &mut Look) {
        let config = &self.config;
        let name = self.relative(path);
        if look.files.len() >= config.files_max {
            return look.skip(name, format!("{} files are loaded, which is the most", config.files_max));
        }
        if meta.len() > config.file_bytes_max {
            return look.skip(name, format!("it is larger than {} bytes", config.file_bytes_max));
        }
        if look.bytes + meta.len() > config.total_bytes_max {
            return look.skip(name, format!("all files together would be more than {} bytes", config.total_bytes_max));
        }
        let key = [b"/", path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_bytes()].concat();
        if let Some(known) = self.known.get(&key).filter(|known| known.signature() == signature(meta)) {
            look.bytes += known.len() as u64;
            look.files.insert(key, Arc::clone(known));
            return;
        }
        match load(&name, target, config.file_bytes_max.min(config.total_bytes_max - look.bytes)) {
            Ok(file) => {
                if self.scans > 0 {
                    tracing::info!("reloading {name} ({} bytes)", file.len());
                } else {
                    tracing::debug!("loading {name} ({} bytes)", file.len());
                }
                look.changed = true;
                look.bytes += file.len() as u64;
                look.files.insert(key, Arc::new(file));
            }
            Err(error) => look.skip(name, format!("it cannot be read ({error})")),
        }
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }
}

impl Look {
    fn skip(&mut self, name: String, reason: String) {
        // Enough to see what is wrong; a folder full of such files must not fill the log.
        if self.skipped.len() < 1000 {
            self.skipped.insert(format!("{name}: {reason}"));
        }
    }
}

fn signature(meta: &Metadata) -> Signature {
    Signature {
        device: meta.dev(),
        inode: meta.ino(),
        len: meta.len(),
        modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
    }
}

/// Reads a file. Its signature is taken before its bytes, so that a change while it is read shows at the next look.
fn load(name: &str, path: &Path, bytes_max: u64) -> io::Result<File> {
    // Not to be tricked by a link or a pipe that took the file's place since it was looked at.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no longer a file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(bytes_max)).unwrap_or(0));
    file.by_ref().take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other("it grew too large while it was read"));
    }
    let modified = u64::try_from(meta.mtime()).ok();
    Ok(File::new(name.to_string(), bytes.into(), modified, signature(&meta)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scanner(root: &Path) -> Scanner {
        Scanner::new(SiteConfig::new(root)).unwrap()
    }

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.files().iter().map(|file| file.name()).collect()
    }

    fn set_mtime(path: &Path, seconds: u64) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn changes_show_at_the_next_look_and_only_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("a.txt"), "one").unwrap();
        fs::write(root.join("sub/b.txt"), "two").unwrap();
        set_mtime(&root.join("a.txt"), 1000);
        let mut scanner = scanner(root);
        let first = scanner.scan().unwrap();
        assert_eq!(names(&first), ["a.txt", "sub/b.txt"]);
        assert_eq!(first.files()[0].modified(), Some(1000));
        assert!(scanner.scan().is_none(), "nothing changed");

        fs::write(root.join("a.txt"), "ONE").unwrap();
        set_mtime(&root.join("a.txt"), 2000);
        fs::write(root.join("c.txt"), "three").unwrap();
        let second = scanner.scan().unwrap();
        assert_eq!(names(&second), ["a.txt", "c.txt", "sub/b.txt"]);
        assert_eq!(**second.files()[0].bytes(), *b"ONE");
        assert!(Arc::ptr_eq(&second.files()[2], &first.files()[1]), "unchanged: not read again");

        fs::remove_file(root.join("a.txt")).unwrap();
        assert_eq!(names(&scanner.scan().unwrap()), ["c.txt", "sub/b.txt"]);
        fs::rename(root.join("sub"), root.join("other")).unwrap();
        assert_eq!(names(&scanner.scan().unwrap()), ["c.txt", "other/b.txt"]);
        fs::remove_dir_all(root).unwrap();
        assert!(scanner.scan().is_none(), "a root that is gone leaves what is in memory");
    }

    #[test]
    fn links_pipes_and_dot_files() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("real/.git")).unwrap();
        fs::create_dir(root.join(".well-known")).unwrap();
        fs::write(root.join(".well-known/x"), "x").unwrap();
        fs::write(root.join("real/file"), "f").unwrap();
        fs::write(root.join("real/.git/config"), "c").unwrap();
        fs::write(root.join(".htpasswd"), "h").unwrap();
        symlink(outside.path(), root.join("out")).unwrap();
        symlink(outside.path().join("secret"), root.join("secret")).unwrap();
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        symlink("../../../../../../../etc", root.join("etc")).unwrap();
        symlink("real", root.join("linked")).unwrap();
        symlink("real/file", root.join("alias")).unwrap();
        symlink("..", root.join("real/up")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let mut scanner = scanner(root);
        let snapshot = scanner.scan().unwrap();
        assert_eq!(names(&snapshot), [".well-known/x", "alias", "linked/file", "real/file"]);
        let mut skipped: Vec<_> = scanner.skipped.iter().map(String::as_str).collect();
        skipped.sort_unstable();
        assert_eq!(
            skipped,
            [
                ".htpasswd: its name starts with a dot",
                "dangling: it cannot be read (No such file or directory (os error 2))",
                "etc: it is a link that leaves the root",
                "linked/.git: its name starts with a dot",
                "linked/up: it leads back to a folder that it lies in",
                "out: it is a link that leaves the root",
                "passwd: it is a link that leaves the root",
                "pipe: it is neither a file nor a folder",
                "real/.git: its name starts with a dot",
                "real/up: it leads back to a folder that it lies in",
                "secret: it is a link that leaves the root",
            ]
        );
    }

    #[test]
    fn bounds() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        for (name, len) in [("a", 10), ("b", 90), ("c", 50), ("d/x", 1), ("d/e/y", 1), ("z", 1)] {
            fs::write(root.join(name), vec![0; len]).unwrap();
        }
        let config = SiteConfig { total_bytes_max: 62, file_bytes_max: 80, depth_max: 2, ..SiteConfig::new(root) };
        let snapshot = Scanner::new(config).unwrap().scan().unwrap();
        assert_eq!(names(&snapshot), ["a", "c", "d/x", "z"]);
        assert_eq!(snapshot.bytes(), 62);
        let config = SiteConfig { files_max: 2, ..SiteConfig::new(root) };
        assert_eq!(names(&Scanner::new(config).unwrap().scan().unwrap()), ["a", "b"]);
    }

    #[test]
    fn a_root_that_is_none_is_an_error_with_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = Scanner::new(SiteConfig::new(folder.path().join("none"))).unwrap_err().to_string();
        assert!(error.contains("cannot be read (No such file"), "{error}");
        let error = Scanner::new(SiteConfig::new(folder.path().join("file"))).unwrap_err().to_string();
        assert!(error.contains("is not a folder"), "{error}");
    }

    #[test]
    fn the_thread_reloads_when_told_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let config = SiteConfig { reload: Duration::ZERO, ..SiteConfig::new(folder.path()) };
        let (site, loader) = Loader::start(config).unwrap();
        assert_eq!(site.snapshot().files().len(), 1);
        fs::write(folder.path().join("b"), "2").unwrap();
        loader.reload_now();
        // Stopping comes behind the reload in the same channel, so that nothing has to be waited for.
        loader.stop();
        assert_eq!(site.snapshot().files().len(), 2);
    }
}
