//! What people see: small pictures and numbers.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};

/// Pictures are reduced to this many pixels a side, so that one takes 16 lines at most.
const MAX_SIDE: usize = 32;

/// Pictures with fewer pixels a side are shown at twice their size.
const MIN_SIDE: usize = 16;

/// Prints lines on standard output. A closed pipe is no reason to fail: nobody reads any more.
pub fn print(text: &str) {
    let mut output = stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// Prints lines on standard error, for when standard output belongs to a program.
pub fn note(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// How pixels are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Half-block characters only: a pixel is there or it is not.
    Plain,
    /// Half-block characters in the grey shades of a 256-colour terminal.
    Shades,
}

impl Ink {
    /// What standard output can show, and its user wants (`NO_COLOR`).
    pub fn detect() -> Ink {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        if stdout().is_terminal() && !set("NO_COLOR") && !dumb { Ink::Shades } else { Ink::Plain }
    }
}

/// The lines of a picture of `values`: `C H W` (channels are averaged), `H W`, or a flat square.
/// Nothing when that is no picture.
pub fn picture(shape: &[usize], values: &[u8], ink: Ink) -> Option<Vec<String>> {
    let (channels, height, width) = match *shape {
        [c, h, w] => (c, h, w),
        [h, w] if h > 1 => (1, h, w),
        [n] | [_, n] => (1, n.isqrt(), n.isqrt()),
        _ => return None,
    };
    let size = channels.checked_mul(height)?.checked_mul(width)?;
    let whole = shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d))?;
    if size != whole || size != values.len() || channels == 0 || height.min(width) < 4 {
        return None;
    }
    let grid = Grid::new([channels, height, width], values);
    Some((0..grid.height).step_by(2).map(|y| grid.line(y, ink)).collect())
}

/// Grey pixels from 0 to 255.
struct Grid {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl Grid {
    /// Averages over channels and, in large pictures, over neighbours; doubles small ones; the
    /// brightest pixel becomes 255.
    fn new([channels, height, width]: [usize; 3], values: &[u8]) -> Grid {
        let step = height.max(width).div_ceil(MAX_SIDE);
        let repeat = if height.max(width) < MIN_SIDE { 2 } else { 1 };
        let brightest = values.iter().copied().max().unwrap_or(0).max(1);
        let (rows, columns) = (height / step, width / step);
        let mut pixels = Vec::with_capacity(rows * columns * repeat * repeat);
        for y in 0..rows * repeat {
            for x in 0..columns * repeat {
                let (y, x) = (y / repeat * step, x / repeat * step);
                let block = (0..channels)
                    .flat_map(|c| (y..y + step).map(move |y| (c * height + y) * width + x))
                    .flat_map(|first| values.iter().skip(first).take(step));
                let sum: usize = block.map(|&v| usize::from(v)).sum();
                let grey = sum * 255 / (channels * step * step * usize::from(brightest));
                pixels.push(u8::try_from(grey).unwrap_or(u8::MAX));
            }
        }
        Grid { height: rows * repeat, width: columns * repeat, pixels }
    }

    fn at(&self, y: usize, x: usize) -> u8 {
        // The last line of an odd height has nothing below it.
        if y < self.height { self.pixels.get(y * self.width + x).copied().unwrap_or(0) } else { 0 }
    }

    /// Rows `y` and `y + 1`, as one line.
    fn line(&self, y: usize, ink: Ink) -> String {
        let mut line = String::new();
        for x in 0..self.width {
            let (top, bottom) = (self.at(y, x), self.at(y + 1, x));
            match ink {
                Ink::Plain => line.push(match (top >= 96, bottom >= 96) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                }),
                Ink::Shades => line.push_str(&format!("\x1b[38;5;{};48;5;{}m▀", shade(top), shade(bottom))),
            }
        }
        if ink == Ink::Shades {
            line.push_str("\x1b[0m");
        }
        line
    }
}

/// Colours 232 to 255 of the 256-colour set are greys.
fn shade(grey: u8) -> u32 {
    232 + u32::from(grey) * 23 / 255
}

/// Puts text beside a picture, in its middle.
pub fn beside(picture: &[String], text: &[String]) -> String {
    let first = picture.len().saturating_sub(text.len()) / 2;
    let mut page = String::new();
    for (i, line) in picture.iter().enumerate() {
        let words = i.checked_sub(first).and_then(|i| text.get(i)).map_or("", String::as_str);
        page.push_str(format!("  {line}   {words}").trim_end());
        page.push('\n');
    }
    // A picture with fewer lines than the text cannot lose any of it.
    for words in text.iter().skip(picture.len() - first) {
        page.push_str(&format!("  {words}\n"));
    }
    page
}

/// A part as percents.
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent == percent.round() { format!("{percent:.0}%") } else { format!("{percent:.1}%") }
}

/// Digits in groups of three, with commas.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pixels_make_a_character() {
        let mut values = [0; 28 * 28];
        // A seven: a bar in lines 1 and 2, then a stem.
        values[28 + 4..28 + 24].fill(255);
        values[2 * 28 + 4..2 * 28 + 24].fill(200);
        for y in 3..27 {
            values[y * 28 + 20] = 255;
        }
        let lines = picture(&[1, 28, 28], &values, Ink::Plain).unwrap();
        assert_eq!(lines.len(), 14);
        assert!(lines.iter().all(|l| l.chars().count() == 28));
        assert_eq!(lines[0].trim_end(), "    ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄");
        assert_eq!(lines[1].trim_end(), "    ▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀█▀▀▀");
        assert_eq!(lines[13].trim(), "▀");
    }

    #[test]
    fn small_flat_pictures_are_doubled_whatever_their_range() {
        let mut values = [0; 64];
        values[9] = 16;
        let lines = picture(&[64], &values, Ink::Plain).unwrap();
        assert_eq!(lines.len(), 8);
        assert_eq!(lines[1], format!("  ██{}", " ".repeat(12)));
        assert_eq!(picture(&[1, 64], &values, Ink::Plain).unwrap(), lines);
    }

    #[test]
    fn shades_are_greys_and_end_with_a_reset() {
        let lines = picture(&[1, 16, 16], &[255; 256], Ink::Shades).unwrap();
        assert!(lines[0].starts_with("\x1b[38;5;255;48;5;255m▀"));
        assert!(lines[0].ends_with("\x1b[0m"));
    }

    #[test]
    fn channels_and_large_sides_are_averaged() {
        let mut values = vec![0; 3 * 64 * 64];
        values[..2 * 64 * 64].fill(255);
        let lines = picture(&[3, 64, 64], &values, Ink::Plain).unwrap();
        assert_eq!(lines.len(), 16);
        assert!(lines.iter().all(|l| *l == "█".repeat(32)));
    }

    #[test]
    fn what_is_no_picture_has_none() {
        for shape in [&[][..], &[2, 32], &[1, 1, 1, 64], &[65]] {
            assert_eq!(picture(shape, &[1; 64], Ink::Plain), None, "{shape:?}");
        }
    }

    #[test]
    fn text_stands_in_the_middle_and_is_never_cut() {
        let lines: Vec<String> = vec!["##".into(); 4];
        let text = ["a".to_owned(), "b".to_owned()];
        assert_eq!(beside(&lines, &text), "  ##\n  ##   a\n  ##   b\n  ##\n");
        assert_eq!(beside(&lines[..1], &text), "  ##   a\n  b\n");
    }
}
