//! Inputs as models take them: one byte per value, channel after channel (`server/PROTOCOL.md`, section 3).
//!
//! Where a model's values have more than 8 bits, and 16 at most, each is two bytes, the lower one first
//! (`u16::to_le_bytes`). What follows is about bytes, which pixels are.
//!
//! A model of shape `[channels, height, width]` takes all of one channel before the next, each from left to
//! right and from top to bottom. Grey images and other single-channel data are in that order already and
//! need nothing. Scaling to the model's height and width is the application's business; normalisation is
//! part of the model, so pixels go in as they are, `0..=255`.

use crate::Result;
use crate::pack::check_len;

/// Splits RGB pixels, `R G B R G B …`, into three planes: all red values, all green, all blue.
///
/// `interleaved` has shape `[height, width, 3]` and `out` shape `[3, height, width]`: equally many bytes.
///
/// # Errors
/// [`Error::WrongLength`](crate::Error::WrongLength) if `interleaved` ends in mid-pixel or `out` is not as
/// long; `out` is then as it was.
///
/// ```
/// let mut planes = [0; 6];
/// seco_core::input::planes_from_rgb(&[1, 2, 3, 4, 5, 6], &mut planes)?;
/// assert_eq!(planes, [1, 4, 2, 5, 3, 6]);
/// # Ok::<(), seco_core::Error>(())
/// ```
pub fn planes_from_rgb(interleaved: &[u8], out: &mut [u8]) -> Result<()> {
    let (pixels, rest) = interleaved.as_chunks::<3>();
    check_len(interleaved.len() - rest.len(), interleaved.len())?;
    planes(pixels.iter().copied(), out)
}

/// [`planes_from_rgb`] for pixels with a fourth byte, `R G B A …`, which is dropped: what cameras and bitmaps
/// of phones give.
///
/// `interleaved` has shape `[height, width, 4]` and `out` shape `[3, height, width]`: three bytes for four.
///
/// # Errors
/// As [`planes_from_rgb`].
pub fn planes_from_rgba(interleaved: &[u8], out: &mut [u8]) -> Result<()> {
    let (pixels, rest) = interleaved.as_chunks::<4>();
    check_len(interleaved.len() - rest.len(), interleaved.len())?;
    planes(pixels.iter().map(|[red, green, blue, _]| [*red, *green, *blue]), out)
}

fn planes(pixels: impl ExactSizeIterator<Item = [u8; 3]>, out: &mut [u8]) -> Result<()> {
    let plane = pixels.len();
    // No overflow: the pixels lie in memory with at least three bytes each.
    check_len(3 * plane, out.len())?;
    let (reds, rest) = out.split_at_mut(plane);
    let (greens, blues) = rest.split_at_mut(plane);
    for (pixel, ((red, green), blue)) in pixels.zip(reds.iter_mut().zip(greens).zip(blues)) {
        [*red, *green, *blue] = pixel;
    }
    Ok(())
}
