//! What can go wrong with an interface, a sentence each.

use std::io;
use thiserror::Error;

/// An operation on an interface that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// No netlink socket.
    #[error(
        "a netlink socket could not be opened ({0}): check that the sandbox allows AF_NETLINK (systemd: RestrictAddressFamilies=)"
    )]
    Socket(#[source] io::Error),
    /// Nothing of that name here.
    #[error(
        "there is no interface {name} in this network namespace: `ip link` lists those that are, or make it with `ip link add`"
    )]
    NoSuchLink {
        /// The name asked for.
        name: String,
    },
    /// A name that the kernel would not take.
    #[error("{name:?} is no name for an interface: use 1 to 15 bytes without space, '/' or ':'")]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// The name is taken.
    #[error("interface {name} exists already: choose another name or remove it with `ip link del {name}`")]
    Exists {
        /// The name that is taken.
        name: String,
    },
    /// Not allowed to.
    #[error(
        "not permitted to {wanted}: CAP_NET_ADMIN is missing; run as root or `setcap cap_net_admin,cap_net_raw+ep` the program"
    )]
    NotPermitted {
        /// What was wanted, as a verb phrase.
        wanted: String,
    },
    /// The kernel lacks that kind of device, or the operation.
    #[error("the kernel cannot {wanted}: its driver is missing; `modprobe veth tun` or another kernel")]
    Unsupported {
        /// What was wanted, as a verb phrase.
        wanted: String,
    },
    /// The kernel said no for another reason.
    #[error("could not {wanted}: {source}; `ip -d link` and `ip address` show what is there")]
    Refused {
        /// What was wanted, as a verb phrase.
        wanted: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The answer made no sense.
    #[error(
        "the kernel's answer to the wish to {wanted} could not be read ({reason}): please report this with the output of `uname -r`"
    )]
    Garbled {
        /// What was wanted, as a verb phrase.
        wanted: String,
        /// What was wrong with the answer.
        reason: String,
    },
}

impl Error {
    /// The error for the kernel's refusal `source` of the wish to `wanted`.
    pub(super) fn from_kernel(wanted: &str, source: io::Error) -> Error {
        let wanted = wanted.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::NotPermitted { wanted },
            Some(libc::EOPNOTSUPP) => Error::Unsupported { wanted },
            _ => Error::Refused { wanted, source },
        }
    }

    /// Turns a refusal because of a missing link into the sentence that says so.
    pub(super) fn about(self, name: &str) -> Error {
        match self {
            Error::Refused { source, .. } if source.raw_os_error() == Some(libc::ENODEV) => {
                Error::NoSuchLink { name: name.to_owned() }
            }
            Error::Refused { source, .. } if source.raw_os_error() == Some(libc::EEXIST) => {
                Error::Exists { name: name.to_owned() }
            }
            other => other,
        }
    }
}
