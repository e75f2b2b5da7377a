//! Versions of what servers say to each other after the TLS handshake, and under which they make bundles: those that
//! this release speaks, the one on which a link and a cluster agree, and the message that says so. Nothing else compares
//! them.
//!
//! The first message of both ends of a link is the range of versions that a server speaks: the lowest and the highest,
//! two varints (postcard). **This message is the same in every version**, and what follows in it is passed over; all
//! that comes after it is of the version that both ends then know, the highest that both speak. What all servers do
//! together, set-ups and bundles, is of the highest that all speak: the gateway finds it and says it in the set-up.
//!
//! Whoever changes what servers say raises `HIGHEST`, and `LOWEST` when this release no longer speaks as before. One thing
//! needs no version: what the gateway may ask and a remote may leave unanswered, after which all goes on as before there was
//! such a question, and orders that are given only to those that answered. They are added behind the others
//! (`cluster::commands`), and who does not know one ends its stream.

use std::fmt;
use std::str::FromStr;

/// The first version that this release speaks.
const LOWEST: u16 = 7;
/// The last one.
const HIGHEST: u16 = 7;
/// Up to this version the first message was a hello, which began with the only version that its server spoke.
const WITHOUT_RANGE: u16 = 6;
/// Versions that one release can speak; a range of more is nonsense.
const MOST: u16 = 16;

/// The versions that a server speaks: from the lowest to the highest, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    lowest: u16,
    highest: u16,
}

impl Versions {
    /// Those of this release.
    pub const OURS: Versions = Versions { lowest: LOWEST, highest: HIGHEST };

    /// A range; `None` if it is none, or wider than any release's.
    pub fn new(lowest: u16, highest: u16) -> Option<Versions> {
        let width = highest.checked_sub(lowest)?;
        (lowest > 0 && width < MOST).then_some(Versions { lowest, highest })
    }

    /// The highest, which is preferred.
    pub fn highest(self) -> u16 {
        self.highest
    }

    /// Whether a version is among them.
    pub fn speaks(self, version: u16) -> bool {
        (self.lowest..=self.highest).contains(&version)
    }

    /// Those that are in both.
    pub fn common(self, other: Versions) -> Option<Versions> {
        let (lowest, highest) = (self.lowest.max(other.lowest), self.highest.min(other.highest));
        (lowest <= highest).then_some(Versions { lowest, highest })
    }

    /// The version that this server must learn to work with one of only later ones; `None` if the other one must.
    pub fn lacks(self, other: Versions) -> Option<u16> {
        (self.highest < other.lowest).then_some(other.lowest)
    }

    /// The first message of a link.
    pub(crate) fn message(self) -> Vec<u8> {
        // Two varints of a few bytes: nothing that can fail.
        postcard::to_stdvec(&(self.lowest, self.highest)).unwrap_or_default()
    }

    /// Reads another server's; `None` if it is none.
    pub(crate) fn read(message: &[u8]) -> Option<Versions> {
        let (lowest, rest) = postcard::take_from_bytes::<u16>(message).ok()?;
        if lowest <= WITHOUT_RANGE {
            return Versions::new(lowest, lowest);
        }
        let (highest, _) = postcard::take_from_bytes::<u16>(rest).ok()?;
        Versions::new(lowest, highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.highest - self.lowest {
            0 => write!(f, "version {}", self.lowest),
            _ => write!(f, "versions {} to {}", self.lowest, self.highest),
        }
    }
}

/// `7`, or `7-8`.
impl FromStr for Versions {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (lowest, highest) = text.split_once('-').unwrap_or((text, text));
        let read = || Versions::new(lowest.parse().ok()?, highest.parse().ok()?);
        // A range of versions that had none would not be read as it is said.
        read().filter(|range| range.lowest > WITHOUT_RANGE).ok_or("is no range of versions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(lowest: u16, highest: u16) -> Versions {
        Versions::new(lowest, highest).unwrap()
    }

    #[test]
    fn the_highest_common_one_counts() {
        let common = |a, b| Versions::common(a, b).map(|both| (both.lowest, both.highest));
        for (a, b, both) in [
            (range(7, 7), range(7, 7), Some((7, 7))),
            (range(7, 8), range(7, 7), Some((7, 7))),
            (range(7, 8), range(8, 9), Some((8, 8))),
            (range(7, 9), range(8, 8), Some((8, 8))),
            (range(7, 7), range(8, 8), None),
            (range(7, 8), range(9, 12), None),
        ] {
            assert_eq!((common(a, b), common(b, a)), (both, both));
        }
        // Who has to learn which.
        assert_eq!((range(7, 7).lacks(range(8, 9)), range(8, 9).lacks(range(7, 7))), (Some(8), None));
        assert!(range(7, 8).speaks(8) && !range(7, 8).speaks(9) && !range(7, 8).speaks(6));
    }

    /// The bytes are those of every release to come.
    #[test]
    fn the_first_message_never_changes() {
        assert_eq!(range(7, 8).message(), [7, 8]);
        assert_eq!(range(300, 301).message(), [0xac, 2, 0xad, 2]);
        assert_eq!(Versions::read(&Versions::OURS.message()), Some(Versions::OURS));
        // What a later release may add is passed over; an earlier one said one number, then something else.
        assert_eq!(Versions::read(&[7, 8, 1, 2, 3]), Some(range(7, 8)));
        assert_eq!(Versions::read(&[6, 0, 3]), Some(range(6, 6)));
    }

    #[test]
    fn hostile_ranges_are_none() {
        // Empty, of version 0, inverted, wider than any release's, truncated, longer than a number can be.
        let hostile: [&[u8]; 9] =
            [&[], &[0], &[0, 0], &[8, 7], &[7, 0], &[7, 7 + 16], &[7], &[0x87], &[7, 0xff, 0xff, 0xff, 0xff]];
        for message in hostile {
            assert_eq!(Versions::read(message), None, "{message:?}");
        }
        assert_eq!(Versions::read(&[7, 0xff, 0xff, 3]), None, "all there are");
        assert_eq!(Versions::new(7, 22), Some(range(7, 22)));
        for text in ["", "-", "8-7", "x", "7-", "7-70000", "0", "6-7"] {
            assert!(text.parse::<Versions>().is_err(), "{text}");
        }
        assert_eq!("7-8".parse(), Ok(range(7, 8)));
        assert_eq!(
            (range(7, 7).to_string(), range(7, 8).to_string()),
            ("version 7".into(), "versions 7 to 8".into())
        );
    }
}
