//! The one line on stdout that says the server can answer. Scripts and tests hold it.

use crate::cli::AppName;
use crate::rung::Rung;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;

/// What the server tells when it can answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ready {
    pub(crate) rung: Rung,
    /// Never empty.
    pub(crate) addresses: Vec<IpAddr>,
    /// Never empty.
    pub(crate) listen: Vec<(AppName, u16)>,
}

impl Ready {
    /// What to type to reach the server: the first HTTP port, or the first port there is.
    pub(crate) fn url(&self) -> String {
        let host = self.addresses.first().map_or_else(String::new, |address| match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        });
        match self.listen.iter().find(|(app, _)| *app == AppName::Http).or(self.listen.first()) {
            Some((AppName::Http, 80)) => format!("http://{host}/"),
            Some((AppName::Http, port)) => format!("http://{host}:{port}/"),
            Some((AppName::Echo | AppName::Sink, port)) => format!("tcp://{host}:{port}"),
            None => String::new(),
        }
    }

    /// Prints the line. A reader of stdout that has gone away is no reason to stop serving.
    pub(crate) fn announce(&self) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{self}").and_then(|()| out.flush());
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(IpAddr::to_string).collect();
        let listen: Vec<_> = self.listen.iter().map(|(app, port)| format!("{app}:{port}")).collect();
        let (addresses, listen) = (addresses.join(","), listen.join(","));
        write!(f, "khamsin ready rung={} address={addresses} listen={listen} url={}", self.rung, self.url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_one_of_the_contract() {
        let ready = Ready {
            rung: Rung::AfXdpNative,
            addresses: vec!["198.18.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            listen: vec![(AppName::Http, 80), (AppName::Echo, 7)],
        };
        assert_eq!(
            ready.to_string(),
            "khamsin ready rung=af-xdp-native address=198.18.0.2,fd00::2 listen=http:80,echo:7 url=http://198.18.0.2/"
        );
    }

    #[test]
    fn urls_name_what_is_not_obvious() {
        let url = |address: &str, listen| {
            Ready { rung: Rung::Epoll, addresses: vec![address.parse().unwrap()], listen }.url()
        };
        assert_eq!(url("127.0.0.1", vec![(AppName::Http, 8080)]), "http://127.0.0.1:8080/");
        assert_eq!(url("fd00::2", vec![(AppName::Echo, 7), (AppName::Http, 80)]), "http://[fd00::2]/");
        assert_eq!(url("127.0.0.1", vec![(AppName::Echo, 7007)]), "tcp://127.0.0.1:7007");
    }
}
