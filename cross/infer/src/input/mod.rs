//! Inputs from files: one byte per value, in the order of the model's input shape.

mod npy;
mod pnm;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest file that is read.
const LONGEST: usize = 64 << 20;

/// What a model takes.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// Extents, for example `[1, 28, 28]` or `[3, 224, 224]`.
    pub extents: &'a [usize],
    /// Their product: bytes of one input. Not zero.
    pub len: usize,
}

/// Why bytes are no input.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// They end too early: if somebody is writing still, there may be more to come.
    Incomplete(String),
    /// They are wrong, whatever follows.
    Wrong(String),
}

impl Unusable {
    fn wrong<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Wrong(what.into()))
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Incomplete(what) | Self::Wrong(what)) = self;
        f.write_str(what)
    }
}

/// One input or several, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Samples {
    values: Vec<u8>,
    len: usize,
}

impl Samples {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.values.chunks_exact(self.len)
    }
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NumPy.
    Npy,
    /// Portable graymap or pixmap.
    Pnm,
    /// The model's input as it is.
    Raw,
}

impl Format {
    /// By the name's extension. `None` if that says nothing.
    pub fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "npy" => Some(Self::Npy),
            "pgm" | "ppm" | "pnm" => Some(Self::Pnm),
            "raw" | "bin" => Some(Self::Raw),
            _ => None,
        }
    }

    /// By the first bytes, where the name says nothing.
    fn of_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Self::Npy,
            [b'P', b'5' | b'6', space, ..] if space.is_ascii_whitespace() => Self::Pnm,
            _ => Self::Raw,
        }
    }
}

/// The samples in a file, or in standard input for `-`.
///
/// # Errors
/// In the outer result if it cannot be read, in the inner one if it is not an input for the model.
pub fn read(path: &Path, shape: Shape<'_>) -> io::Result<Result<Samples, Unusable>> {
    let bytes = match path.to_str() {
        Some("-") => read_all(io::stdin().lock())?,
        _ => read_all(File::open(path)?)?,
    };
    if bytes.len() > LONGEST {
        return Ok(Unusable::wrong(format!("is longer than {LONGEST} bytes")));
    }
    Ok(decode(bytes, Format::of_name(path), shape))
}

/// One byte more than the longest file, if there are so many.
fn read_all(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode(bytes: Vec<u8>, format: Option<Format>, shape: Shape<'_>) -> Result<Samples, Unusable> {
    match format.unwrap_or_else(|| Format::of_bytes(&bytes)) {
        Format::Npy => npy::samples(bytes, shape),
        Format::Pnm => pnm::sample(&bytes, shape),
        Format::Raw => raw(bytes, shape),
    }
}

fn raw(values: Vec<u8>, shape: Shape<'_>) -> Result<Samples, Unusable> {
    let what = || format!("has {} bytes, the model takes {}", values.len(), shape.len);
    match values.len().cmp(&shape.len) {
        std::cmp::Ordering::Less => Err(Unusable::Incomplete(what())),
        std::cmp::Ordering::Greater => Err(Unusable::Wrong(what())),
        std::cmp::Ordering::Equal => Ok(Samples { values, len: shape.len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape<'_> = Shape { extents: &[1, 2, 2], len: 4 };

    #[test]
    fn raw_bytes_are_as_long_as_the_input() {
        let samples = decode(vec![9, 8, 7, 6], None, SHAPE).unwrap();
        assert_eq!(samples.iter().collect::<Vec<_>>(), [[9, 8, 7, 6]]);
        assert!(matches!(decode(vec![0; 3], None, SHAPE), Err(Unusable::Incomplete(_))));
        assert!(matches!(decode(vec![0; 5], None, SHAPE), Err(Unusable::Wrong(_))));
        // The name decides before the first bytes do.
        assert!(decode(b"P5 2".to_vec(), Some(Format::Raw), SHAPE).is_ok());
        assert!(matches!(decode(b"P5 2".to_vec(), None, SHAPE), Err(Unusable::Incomplete(_))));
    }

    #[test]
    fn names_and_first_bytes_tell_the_format() {
        for (name, format) in [
            ("a.npy", Some(Format::Npy)),
            ("b.PGM", Some(Format::Pnm)),
            ("c.x.ppm", Some(Format::Pnm)),
            ("d.raw", Some(Format::Raw)),
            ("e.jpg", None),
            ("npy", None),
        ] {
            assert_eq!(Format::of_name(Path::new(name)), format, "{name}");
        }
        assert_eq!(Format::of_bytes(b"\x93NUMPY\x01"), Format::Npy);
        assert_eq!(Format::of_bytes(b"P6\n"), Format::Pnm);
        assert_eq!(Format::of_bytes(b"P5x"), Format::Raw);
        assert_eq!(Format::of_bytes(b""), Format::Raw);
    }

    #[test]
    fn endless_files_are_refused() {
        let told = read(Path::new("/dev/zero"), SHAPE).unwrap().unwrap_err();
        assert!(matches!(&told, Unusable::Wrong(what) if what.contains("longer")), "{told}");
    }
}
