//! Where requests come from, as far as sharing is concerned.

use std::net::IpAddr;

use seco_core::SessionId;

/// An IPv4 address, or the /64 network of an IPv6 address, which is what one household or machine has: within it
/// a device can take any address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 => v4,
        })
    }
}

/// Who waits for something that is shared. Devices are told apart by their sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Where the device is.
    pub source: Source,
    /// Which device there.
    pub device: SessionId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
