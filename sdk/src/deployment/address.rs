//! Where a gateway is: by name, which works in every network that has one, or by number.

use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A host name or IP address, and a port: `gateway.example:7443`, `192.0.2.7:7443`, `[2001:db8::7]:7443`.
///
/// A name is looked up whenever a connection is made, and nothing but reachability depends on the answer: the
/// certificate's pin says who is there. In networks of IPv6 alone, a gateway with an IPv4 address is reached by name
/// only (NAT64 with DNS64).
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    pub(crate) const FORMAT: &str =
        "a host name or IP address and a port, such as \"gateway.example:7443\" or \"[2001:db8::7]:7443\"";

    /// Whether `host` is a host name or an IP address, of which an address is made with a port.
    #[must_use]
    pub fn is_host(host: &str) -> bool {
        host.parse::<IpAddr>().is_ok() || is_name(host)
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = &'static str;

    /// # Errors
    /// What is expected.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_address(text) { Ok(Self(text.to_owned())) } else { Err(Self::FORMAT) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_address(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    // Parsing alone would take a sign.
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(port) && port.parse::<u16>().is_ok_and(|port| port != 0) && is_name(host)
}

/// Whether `host` is written like a name. Underscores are not a name's on the Internet, but are of containers.
fn is_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        matches!(label.len(), 1..=63)
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // A number at the end is a mistyped IP address, of which the system would make something.
    let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    host.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn names_and_numbers_are_read_as_they_are() {
        let longest = format!("{0}.{0}.{0}.{1}:65535", "a".repeat(63), "b".repeat(61));
        for text in [
            "gateway.example:7443",
            "gateway.example.:7443",
            "localhost:1",
            "remote-1:65535",
            "seco_gateway:7443",
            "xn--bcher-kva.example:443",
            "1a:80",
            "192.0.2.7:7443",
            "[2001:db8::7]:7443",
            "[::1]:7443",
            "[fe80::1%2]:7443",
            &longest,
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.as_str(), address.to_string().as_str()), (text, text));
        }
    }

    #[test]
    fn everything_else_is_refused_and_told_what_is_expected() {
        let long = [format!("{}:1", "a".repeat(64)), format!("{}b:1", "a.".repeat(127)), "a".repeat(1 << 20)];
        let hostile = [
            "",
            ":",
            ":7443",
            "gateway",
            "gateway:",
            "gateway:0",
            "gateway:65536",
            "gateway:-1",
            "gateway:+80",
            "gateway: 80",
            "gateway:80 ",
            " gateway:80",
            "gate way:80",
            "gateway:http",
            "gateway:８０",
            "a..b:80",
            ".a:80",
            ".:80",
            "a:b:80",
            "::1:80",
            "2001:db8::7",
            "[::1]",
            "[::1]:0",
            "[::1]:",
            "[::1:80",
            "::1]:80",
            "[gateway]:80",
            "[192.0.2.7]:80",
            "192.0.2.7",
            "192.0.2.7:0",
            "192.0.2.256:80",
            "192.0.2:80",
            "1:80",
            "127.1.:80",
            "https://gateway:80",
            "user@gateway:80",
            "gateway/x:80",
            "gateway%00:80",
            "gate\0way:80",
            "gate\nway:80",
            "gateway:80\n",
            "bücher.example:80",
            "\u{202e}gateway:80",
            "gateway:80:",
            "*:80",
        ];
        for text in hostile.into_iter().chain(long.iter().map(String::as_str)) {
            let shown: String = text.chars().take(80).collect();
            let problem = text.parse::<Address>().expect_err(&shown);
            assert!(problem.contains("a host name or IP address and a port"), "{problem}");
        }
    }
}
