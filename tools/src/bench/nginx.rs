//! nginx in the foreground, with a configuration of its own.

use anyhow::Result;
use khamsin_tools::bed::Bed;
use khamsin_tools::command::Running;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// An nginx that runs. Dropping it ends it.
pub(crate) struct Nginx {
    running: Running,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it in the server's namespace of `bed`, with `workers` workers, for the files of `root`.
    ///
    /// # Errors
    /// It is not installed, or its configuration cannot be written.
    pub(crate) fn start(bed: &Bed, root: &Path, workers: usize) -> Result<Nginx> {
        let folder = tempfile::Builder::new().prefix("khamsin-nginx-").tempdir()?;
        let path = folder.path().join("nginx.conf");
        fs::write(&path, configuration(&folder.path().to_string_lossy(), &root.to_string_lossy(), workers))?;
        let mut command = bed.server.command("nginx");
        command.arg("-e").arg("stderr").arg("-p").arg(folder.path()).arg("-c").arg(&path);
        Ok(Nginx { running: Running::start(command, None)?, _folder: folder })
    }

    /// Its first process.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// All its processes.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        family(self.id())
    }
}

/// A process and its children.
///
/// # Errors
/// It has ended.
pub(crate) fn family(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(std::iter::once(pid).chain(children.split_whitespace().filter_map(|p| p.parse().ok())).collect())
}

/// nginx at its best for these loads: files stay open, nothing is logged, connections are never closed for their age, nor
/// because nearly all that it may have are in use (more than it has descriptors for).
fn configuration(folder: &str, root: &str, workers: usize) -> String {
    format!(
        "daemon off;\nuser root;\nworker_processes {workers};\nworker_rlimit_nofile 20000;\npid {folder}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 32768; }}\n\
         http {{\n  access_log off;\n  sendfile off;\n  tcp_nodelay on;\n  keepalive_requests 1000000000;\n  keepalive_timeout 3600;\n\
         \x20 client_header_timeout 3600;\n\
         \x20 open_file_cache max=100 inactive=1h;\n  open_file_cache_valid 5s;\n  default_type application/octet-stream;\n\
         \x20 client_body_temp_path {folder}/b;\n  proxy_temp_path {folder}/p;\n  fastcgi_temp_path {folder}/f;\n\
         \x20 uwsgi_temp_path {folder}/u;\n  scgi_temp_path {folder}/s;\n\
         \x20 server {{ listen 80 backlog=8192 reuseport; root {root}; }}\n}}\n"
    )
}
