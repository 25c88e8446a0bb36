//! The bpf(2) system call: maps, programs and links, one function for each command that is used.
//!
//! The argument structs are the parts of `union bpf_attr` (linux/bpf.h) that each command reads; the kernel takes what
//! lies behind them for zero.
//!
//! This file contains `unsafe` code: bpf(2) itself, and descriptors that it returns.
#![allow(unsafe_code)]

use super::asm::Insn;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
#[cfg(test)]
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_XSKMAP: u32 = 17;
/// `BPF_F_MMAPABLE`: Linux 5.5 and later.
const F_MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_XDP: u32 = 6;
/// `BPF_XDP`, the attach type.
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
pub(super) const ATTACH_GENERIC: u32 = 1 << 1;
pub(super) const ATTACH_NATIVE: u32 = 1 << 2;

/// What maps and programs of ours are called in `bpftool` and `ip link`.
pub(super) const NAME: &str = "khamsin";
const LOG_LEN: usize = 64 << 10;

const fn name() -> [u8; 16] {
    let (from, mut to) = (NAME.as_bytes(), [0; 16]);
    let mut i = 0;
    while i < from.len() {
        to[i] = from[i];
        i += 1;
    }
    to
}

/// # Safety
/// `attr` is what `command` reads (a prefix of its part of `union bpf_attr`), and every address in it is valid for what
/// the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_int, Errno> {
    // SAFETY: the true size is given; the rest is the contract of this function.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(result as libc::c_int)
    }
}

/// # Safety
/// As for [`bpf`], and `command` returns a descriptor.
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> Result<OwnedFd, Errno> {
    // SAFETY: a descriptor that the kernel just made belongs to nobody else.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// An XSKMAP: from queue number to AF_XDP socket.
pub(super) fn xskmap(queues: u32) -> Result<OwnedFd, Errno> {
    map(MAP_TYPE_XSKMAP, 4, queues, 0)
}

/// An array of `entries` values of `value_size` bytes, zeroed, that mmap(2) on its descriptor shows.
pub(super) fn shared_array(value_size: u32, entries: u32) -> Result<OwnedFd, Errno> {
    map(MAP_TYPE_ARRAY, value_size, entries, F_MMAPABLE)
}

/// A map with keys of four bytes.
fn map(map_type: u32, value_size: u32, max_entries: u32, flags: u32) -> Result<OwnedFd, Errno> {
    #[repr(C)]
    struct Attr {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut attr =
        Attr { map_type, key_size: 4, value_size, max_entries, flags, inner_map_fd: 0, numa_node: 0, name: name() };
    // SAFETY: a prefix of the anonymous struct for BPF_MAP_CREATE, without addresses.
    unsafe { bpf_fd(MAP_CREATE, &mut attr) }
}

/// Puts `socket` at `queue` of an XSKMAP. The entry goes by itself when the socket is closed.
pub(super) fn xskmap_set(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Errno> {
    #[repr(C)]
    struct Attr {
        map_fd: u32,
        _pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let value = socket.as_raw_fd() as u32;
    let mut attr = Attr {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: (&raw const queue) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: key and value are four bytes long, as the map says (`xskmap`), and outlive the call.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr).map(drop) }
}

/// Why a program was not loaded.
pub(super) struct LoadError {
    pub(super) errno: Errno,
    /// What the verifier says; empty when the program never got there.
    pub(super) log: String,
}

/// Loads an XDP program.
pub(super) fn load(code: &[Insn]) -> Result<OwnedFd, LoadError> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        name: [u8; 16],
        ifindex: u32,
        expected_attach_type: u32,
    }
    let mut attr = Attr {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        name: name(),
        ifindex: 0,
        expected_attach_type: ATTACH_XDP,
    };
    // SAFETY: `code` and the licence outlive the call and the count is theirs.
    let errno = match unsafe { bpf_fd(PROG_LOAD, &mut attr) } {
        Ok(program) => return Ok(program),
        Err(errno) => errno,
    };
    // Only a failure pays for the log: load again and let the verifier talk.
    let mut log = vec![0u8; LOG_LEN];
    (attr.log_level, attr.log_size, attr.log_buf) = (1, LOG_LEN as u32, log.as_mut_ptr() as u64);
    // SAFETY: as above; the log buffer is as long as said and outlives the call.
    let _ = unsafe { bpf_fd(PROG_LOAD, &mut attr) };
    let end = log.iter().position(|&b| b == 0).unwrap_or(LOG_LEN);
    Err(LoadError { errno, log: String::from_utf8_lossy(&log[..end]).into_owned() })
}

/// Attaches an XDP program to an interface for as long as the returned link is open: the death of the process detaches it.
pub(super) fn link(program: BorrowedFd<'_>, interface_index: u32, flags: u32) -> Result<OwnedFd, Errno> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr =
        Attr { prog_fd: program.as_raw_fd() as u32, target: interface_index, attach_type: ATTACH_XDP, flags };
    // SAFETY: a prefix of `link_create`, without addresses.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

/// Puts another program in the place of the one that `link` holds, between two packets.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr =
        Attr { link_fd: link.as_raw_fd() as u32, new_prog_fd: program.as_raw_fd() as u32, flags: 0, old_prog_fd: 0 };
    // SAFETY: all of `link_update`, without addresses.
    unsafe { bpf(LINK_UPDATE, &mut attr).map(drop) }
}

/// What the kernel tells of a loaded program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProgramInfo {
    pub(super) name: String,
    /// Hash of its instructions, as `bpftool prog` prints it.
    pub(super) tag: String,
}

/// Looks up a loaded program by its id.
pub(super) fn program_info(id: u32) -> Result<ProgramInfo, Errno> {
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    #[repr(C)]
    struct InfoByFd {
        fd: u32,
        len: u32,
        info: u64,
    }
    /// The head of `struct bpf_prog_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        prog_type: u32,
        id: u32,
        tag: [u8; 8],
        jited_len: u32,
        xlated_len: u32,
        jited_insns: u64,
        xlated_insns: u64,
        load_time: u64,
        created_by_uid: u32,
        nr_map_ids: u32,
        map_ids: u64,
        name: [u8; 16],
    }
    // SAFETY: a prefix of the anonymous struct for the *_GET_*_ID commands, without addresses.
    let program = unsafe { bpf_fd(PROG_GET_FD_BY_ID, &mut ById { id, next_id: 0, open_flags: 0 })? };
    let mut info = Info::default();
    let mut attr =
        InfoByFd { fd: program.as_raw_fd() as u32, len: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: `info` is as long as said, zeroed (so that the kernel copies no instructions out), and outlives the call.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr)? };
    let name = info.name.split(|&b| b == 0).next().unwrap_or_default();
    Ok(ProgramInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        tag: info.tag.iter().map(|b| format!("{b:02x}")).collect(),
    })
}

/// Runs a program on one frame; returns its action.
#[cfg(test)]
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> Result<u32, Errno> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        _pad: u32,
    }
    let mut out = vec![0u8; 4096];
    let mut attr = Attr {
        prog_fd: program.as_raw_fd() as u32,
        retval: 0,
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        duration: 0,
        ctx_size_in: 0,
        ctx_size_out: 0,
        ctx_in: 0,
        ctx_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        _pad: 0,
    };
    // SAFETY: both buffers are as long as said and outlive the call.
    unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
    Ok(attr.retval)
}
