//! Portable graymap (P5) and pixmap (P6), 8 bits per value: what cameras' and scanners' tools write without a
//! codec.

use super::{Samples, Shape, Unusable};
use seco_sdk::input::planes_from_rgb;

/// The one picture in `file`, as planes.
pub fn sample(file: &[u8], shape: Shape<'_>) -> Result<Samples, Unusable> {
    let channels = match file {
        [b'P', b'5', ..] => 1,
        [b'P', b'6', ..] => 3,
        [] | [b'P'] => return Err(Unusable::Incomplete("the picture ends in its header".to_owned())),
        _ => return Unusable::wrong("not a binary .pgm or .ppm picture (P5 or P6)"),
    };
    let mut rest = file.get(2..).unwrap_or_default();
    let [width, height, depth] = [number(&mut rest)?, number(&mut rest)?, number(&mut rest)?];
    if depth != 255 {
        return Unusable::wrong(format!("has values up to {depth}; only 255 is supported"));
    }
    if let Some((space, values)) = rest.split_first() {
        // Exactly one: the next byte may be a pixel that looks like a space.
        if !space.is_ascii_whitespace() {
            return Unusable::wrong("the picture's header is not readable");
        }
        rest = values;
    }
    // A model may leave the picture's form open, but not the number of its values.
    let form = match *shape.extents {
        [model_channels, model_height, model_width] => {
            (model_channels, model_width, model_height) == (channels, width, height)
        }
        _ => width.checked_mul(height).and_then(|n| n.checked_mul(channels)) == Some(shape.len),
    };
    if !form {
        return Unusable::wrong(format!(
            "is a picture of {width} x {height} pixels in {channels} channels, the model takes {:?} \
             (channels, height, width); resize it before",
            shape.extents
        ));
    }
    if rest.len() != shape.len {
        let what = format!("has {} bytes of pixels instead of {}", rest.len(), shape.len);
        return Err(if rest.len() < shape.len { Unusable::Incomplete(what) } else { Unusable::Wrong(what) });
    }
    let mut values = rest.to_vec();
    if channels == 3 {
        planes_from_rgb(rest, &mut values).map_err(|error| Unusable::Wrong(error.to_string()))?;
    }
    Ok(Samples { values, len: shape.len })
}

/// The next number of the header, after space and comments.
fn number(rest: &mut &[u8]) -> Result<usize, Unusable> {
    let cut = || Unusable::Incomplete("the picture ends in its header".to_owned());
    let unreadable = || Unusable::Wrong("the picture's header is not readable".to_owned());
    let mut bytes = *rest;
    let mut separated = false;
    loop {
        match bytes.split_first().ok_or_else(cut)? {
            (space, after) if space.is_ascii_whitespace() => (bytes, separated) = (after, true),
            (b'#', after) => {
                let end = after.iter().position(|byte| *byte == b'\n').ok_or_else(cut)?;
                (bytes, separated) = (after.get(end..).unwrap_or_default(), true);
            }
            _ => break,
        }
    }
    // A digit at the end of the file may be the first of several.
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = bytes.split_at_checked(digits).ok_or_else(unreadable)?;
    if after.is_empty() {
        return Err(cut());
    }
    *rest = after;
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
    number.filter(|_| separated).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: Shape<'_> = Shape { extents: &[1, 2, 3], len: 6 };
    const RGB: Shape<'_> = Shape { extents: &[3, 1, 2], len: 6 };

    fn only(file: &[u8], shape: Shape<'_>) -> Vec<u8> {
        let samples = sample(file, shape).unwrap();
        assert_eq!(samples.iter().len(), 1);
        samples.iter().next().unwrap().to_vec()
    }

    #[test]
    fn grey_values_stay_as_they_are() {
        assert_eq!(only(b"P5\n3 2\n255\nabcdef", GREY), b"abcdef");
        assert_eq!(only(b"P5 # made by hand\n# 9 9\n3\t2 #c\r\n255 \n\n    ", GREY), b"\n\n    ");
        // A flat model takes a picture of any form.
        assert_eq!(only(b"P5 2 3 255\nabcdef", Shape { extents: &[6], len: 6 }), b"abcdef");
    }

    #[test]
    fn colours_become_planes() {
        assert_eq!(only(b"P6 2 1 255\nRGBrgb", RGB), b"RrGgBb");
    }

    #[test]
    fn a_picture_cut_anywhere_is_incomplete() {
        let whole = b"P6 # x\n2 1\n255\nRGBrgb";
        for end in 0..whole.len() {
            let cut = whole.get(..end).unwrap();
            assert!(matches!(sample(cut, RGB), Err(Unusable::Incomplete(_))), "{end}");
        }
        assert!(sample(whole, RGB).is_ok());
    }

    #[test]
    fn other_pictures_are_refused() {
        let wrong = |file: &[u8], shape| match sample(file, shape) {
            Err(Unusable::Wrong(what)) => what,
            other => panic!("{}: {other:?}", file.escape_ascii()),
        };
        assert!(wrong(b"P5 2 3 255\nabcdef", GREY).contains("2 x 3 pixels in 1 channels"));
        assert!(wrong(b"P5 2 1 255\nRGBrgb", RGB).contains("the model takes [3, 1, 2]"));
        assert!(wrong(b"P5 3 2 65535\nabcdefabcdef", GREY).contains("65535"));
        assert!(wrong(b"P5 3 2 255\nabcdefg", GREY).contains("7 bytes"));
        for file in [
            b"P2 3 2 255\n1 2 3 4 5 6".as_slice(),
            b"PNG",
            b"xx",
            b"P53 2 255\nabcdef",
            b"P5 3 2 255xabcdef",
            b"P5 -3 2 255\nabcdef",
            b"P5 3 b 255\nabcdef",
            b"P5 99999999999999999999999999 2 255\nabcdef",
            b"P6 18446744073709551615 3 255\nabcdef",
        ] {
            wrong(file, GREY);
        }
        wrong(b"P6 18446744073709551615 3 255\nabcdef", Shape { extents: &[6], len: 6 });
    }
}
