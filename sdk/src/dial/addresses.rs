//! Which of the gateway's addresses are tried, and in which order.

use std::net::SocketAddr;

/// Most addresses that are tried. Whoever answers look-ups is not trusted.
const MAX_ADDRESSES: usize = 6;

/// Addresses in the system's order, but the one that `answered` last comes first, and the second is of the other family
/// than the first, if there is such a one.
pub(super) fn in_turn(mut addresses: Vec<SocketAddr>, answered: Option<SocketAddr>) -> Vec<SocketAddr> {
    if let Some(known) = answered.and_then(|known| addresses.iter().position(|address| *address == known)) {
        let known = addresses.remove(known);
        addresses.insert(0, known);
    }
    if let Some(first) = addresses.first().copied()
        && let Some(other) = addresses.iter().position(|address| address.is_ipv6() != first.is_ipv6())
    {
        let other = addresses.remove(other);
        addresses.insert(1, other);
    }
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_come_first_and_few_addresses_at_all() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|ip| SocketAddr::new(ip.parse().unwrap(), 7443)).collect()
        };
        for (found, tried) in [
            ("::1 ::2 10.0.0.1 ::3 10.0.0.2", "::1 10.0.0.1 ::2 ::3 10.0.0.2"),
            ("10.0.0.1 ::1", "10.0.0.1 ::1"),
            ("10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"),
            ("::1 ::2 ::3 ::4 ::5 ::6 ::7 10.0.0.1", "::1 10.0.0.1 ::2 ::3 ::4 ::5"),
        ] {
            assert_eq!(in_turn(parse(found), None), parse(tried), "{found}");
        }
        assert_eq!(in_turn(Vec::new(), None), []);
        for (known, tried) in [
            ("10.0.0.2", "10.0.0.2 ::1 ::2 10.0.0.1 ::3"),
            ("::3", "::3 10.0.0.1 ::1 ::2 10.0.0.2"),
            ("10.0.0.9", "::1 10.0.0.1 ::2 ::3 10.0.0.2"),
        ] {
            let found = parse("::1 ::2 10.0.0.1 ::3 10.0.0.2");
            assert_eq!(in_turn(found, parse(known).first().copied()), parse(tried), "{known}");
        }
    }
}
