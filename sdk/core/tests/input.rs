//! Pixels in the order that models take.

use proptest::prelude::*;
use seco_core::Error;
use seco_core::input::{planes_from_rgb, planes_from_rgba};

#[test]
fn pixels_become_planes() {
    let mut planes = [0; 12];
    planes_from_rgb(&[11, 21, 31, 12, 22, 32, 13, 23, 33, 14, 24, 34], &mut planes).unwrap();
    assert_eq!(planes, [11, 12, 13, 14, 21, 22, 23, 24, 31, 32, 33, 34]);
    let mut planes = [0; 6];
    planes_from_rgba(&[11, 21, 31, 255, 12, 22, 32, 0], &mut planes).unwrap();
    assert_eq!(planes, [11, 12, 21, 22, 31, 32]);
    planes_from_rgb(&[], &mut []).unwrap();
    planes_from_rgba(&[], &mut []).unwrap();
}

#[test]
fn wrong_lengths_are_errors() {
    let mut planes = [9; 6];
    let wrong = |expected, got| Err(Error::WrongLength { expected, got });
    assert_eq!(planes_from_rgb(&[0; 7], &mut planes), wrong(6, 7));
    assert_eq!(planes_from_rgb(&[0; 3], &mut planes), wrong(3, 6));
    assert_eq!(planes_from_rgb(&[0; 9], &mut planes), wrong(9, 6));
    assert_eq!(planes_from_rgb(&[], &mut planes), wrong(0, 6));
    assert_eq!(planes_from_rgba(&[0; 9], &mut planes), wrong(8, 9));
    assert_eq!(planes_from_rgba(&[0; 12], &mut planes), wrong(9, 6));
    assert_eq!(planes, [9; 6], "left as it was");
}

proptest! {
    #[test]
    fn every_value_finds_its_place(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let pixels = bytes.len() / 4;
        let mut planes = vec![0; 3 * pixels];
        planes_from_rgba(&bytes[..4 * pixels], &mut planes).unwrap();
        for (i, pixel) in bytes.chunks_exact(4).enumerate() {
            prop_assert_eq!([planes[i], planes[pixels + i], planes[2 * pixels + i]], &pixel[..3]);
        }
        let pixels = bytes.len() / 3;
        let mut planes = vec![0; 3 * pixels];
        planes_from_rgb(&bytes[..3 * pixels], &mut planes).unwrap();
        for (i, pixel) in bytes.chunks_exact(3).enumerate() {
            prop_assert_eq!([planes[i], planes[pixels + i], planes[2 * pixels + i]], pixel);
        }
    }
}
