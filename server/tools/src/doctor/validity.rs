//! From when to when a certificate is valid: the one field of X.509 that nothing else here reads. The servers and
//! devices compare certificates whole and look at no dates, but other software that is put in between may.

use std::time::{SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Says until when a certificate (DER) is valid at a time.
///
/// # Errors
/// That it is not valid yet, or no more, or cannot be read.
pub(super) fn check(certificate: &[u8], now: SystemTime) -> Result<String, String> {
    let unreadable = || "its dates cannot be read: make another with seco keygen".to_owned();
    let (from, until) = dates(certificate).ok_or_else(unreadable)?;
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    let day = |seconds: i64| {
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        format!("{year:04}-{month:02}-{day:02}")
    };
    if now < from {
        return Err(format!("it is valid from {} on only: set this machine's clock", day(from)));
    }
    if now > until {
        return Err(format!(
            "it was valid until {}: make another with seco keygen, or set this machine's clock",
            day(until)
        ));
    }
    Ok(format!("valid until {}", day(until)))
}

/// Both ends in seconds since 1970.
fn dates(certificate: &[u8]) -> Option<(i64, i64)> {
    let (body, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(body, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest, VERSION)?.1;
    }
    // Serial number, algorithm, issuer.
    for tag in [0x02, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (until, _) = time(rest)?;
    Some((from, until))
}

/// The content of an element with this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (digits, after) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(d, _)| d.len() <= 4)?;
        length = digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit));
        rest = after;
    }
    if found != tag {
        return None;
    }
    rest.split_at_checked(length)
}

/// A time in UTC, with seconds and without fractions, as certificates have it.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let tag = *bytes.first().filter(|tag| [UTC_TIME, GENERALIZED_TIME].contains(tag))?;
    let (text, rest) = element(bytes, tag)?;
    let digits = text.strip_suffix(b"Z")?;
    let years = if tag == UTC_TIME { 2 } else { 4 };
    if digits.len() != years + 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0i64, |sum, digit| 10 * sum + i64::from(digit - b'0'));
    let (year, others) = digits.split_at(years);
    let mut year = number(year);
    if tag == UTC_TIME {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let mut fields = others.chunks(2).map(number);
    let mut next = || fields.next();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    Some((days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second, rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years from March on: the odd day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date so many days after 1970-01-01.
fn civil(days_since: i64) -> (i64, i64, i64) {
    let guess = 1970 + days_since.div_euclid(366);
    let year = (guess..).find(|year| days(year + 1, 1, 1) > days_since).unwrap_or(guess);
    let month = (1..12).find(|month| days(year, month + 1, 1) > days_since).unwrap_or(12);
    (year, month, days_since - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (date, expected) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 28), 20_785),
            ((4096, 1, 1), 776_506),
        ] {
            assert_eq!(days(date.0, date.1, date.2), expected, "{date:?}");
            assert_eq!(civil(expected), date);
        }
    }

    #[test]
    fn a_certificate_is_valid_between_its_dates_and_nonsense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let files = seco_node::keys::generate(folder.path(), "s0").unwrap();
        let certificate = seco_node::keys::certificate(&files.certificate).unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(check(&certificate, at(1_800_000_000)).unwrap(), "valid until 4096-01-01");
        assert!(check(&certificate, at(10_000_000)).unwrap_err().contains("1975-01-01 on only"));
        assert!(check(&certificate, at(90_000_000_000)).unwrap_err().contains("until 4096-01-01"));
        for length in 0..certificate.len() {
            let _ = check(&certificate[..length], at(1_800_000_000));
        }
        for place in 0..certificate.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0x88, 0xff] {
                let mut spoilt = certificate.to_vec();
                spoilt[place] = value;
                let _ = check(&spoilt, at(1_800_000_000));
            }
        }
    }
}
