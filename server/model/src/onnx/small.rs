//! Types of fewer than eight bits, and floats of eight: what weights are quantised to.

use super::tensor::{Data, Element};

/// A floating-point type of a byte or less: a sign, an exponent and a fraction.
struct Small {
    fraction: i32,
    exponent: i32,
    bias: i32,
    /// The largest number.
    most: f64,
    /// Whether what would be -0 is the only one that is no number.
    unsigned_zero: bool,
}

impl Element {
    /// Whether it is one of these types.
    pub(crate) fn is_small(self) -> bool {
        matches!(self, Element::Int4 | Element::Uint4 | Element::Int2 | Element::Uint2)
            || self.small().is_some()
    }

    fn small(self) -> Option<Small> {
        let of = |[exponent, fraction, bias]: [i32; 3], most: f64, unsigned_zero: bool| {
            Some(Small { fraction, exponent, bias, most, unsigned_zero })
        };
        match self {
            Element::Float8E4M3Fn => of([4, 3, 7], 448.0, false),
            Element::Float8E4M3Fnuz => of([4, 3, 8], 240.0, true),
            Element::Float8E5M2 => of([5, 2, 15], 57344.0, false),
            Element::Float8E5M2Fnuz => of([5, 2, 16], 57344.0, true),
            Element::Float4E2M1 => of([2, 1, 1], 6.0, false),
            _ => None,
        }
    }

    /// Bits of an element in a file.
    fn bits(self) -> usize {
        match self {
            Element::Int2 | Element::Uint2 => 2,
            Element::Int4 | Element::Uint4 | Element::Float4E2M1 => 4,
            Element::Int8 | Element::Uint8 | Element::Bool => 8,
            Element::Float16 | Element::BFloat16 | Element::Int16 | Element::Uint16 => 16,
            Element::Float | Element::Int32 | Element::Uint32 => 32,
            Element::Double | Element::Int64 | Element::Uint64 => 64,
            _ => 8,
        }
    }

    /// Bytes of so many elements in a file: several share one where they have fewer than eight bits.
    pub(crate) fn bytes(self, count: usize) -> usize {
        count.saturating_mul(self.bits()).div_ceil(8)
    }

    /// The number of this small floating-point type that is nearest, the largest for what is beyond.
    pub(super) fn nearest_small(self, value: f64) -> Option<f64> {
        let Small { fraction, bias, most, .. } = self.small()?;
        let rounded = super::tensor::round_to(value, fraction + 1, 1 - bias, most);
        Some(rounded.clamp(-most, most))
    }

    /// The first `count` elements of a small type in these bytes, the lowest bits of each first.
    pub(super) fn unpacked(self, bytes: impl Iterator<Item = u8>, count: usize) -> Data {
        let bits = self.bits();
        let mask = ((1u16 << bits) - 1) as u8;
        let elements = bytes.flat_map(|byte| (0..8).step_by(bits).map(move |shift| byte >> shift & mask));
        let elements = elements.take(count);
        match self.small() {
            Some(small) => Data::Float(elements.map(|bits| small.number(bits)).collect()),
            None => {
                let signed = self.range().0 < 0;
                let value = |element: u8| {
                    let value = i64::from(element);
                    if signed && element >> (bits - 1) == 1 { value - (1 << bits) } else { value }
                };
                Data::Int(elements.map(value).collect())
            }
        }
    }
}

impl Small {
    /// The number that has these bits.
    fn number(&self, bits: u8) -> f64 {
        let bits = i32::from(bits);
        let largest = (1 << self.exponent) - 1;
        let (sign, exponent) = (bits >> (self.exponent + self.fraction), bits >> self.fraction & largest);
        let fraction = bits & ((1 << self.fraction) - 1);
        let sign = if sign == 1 { -1.0 } else { 1.0 };
        if self.unsigned_zero && sign < 0.0 && exponent == 0 && fraction == 0 {
            return f64::NAN;
        }
        let (size, power) = match exponent {
            0 => (fraction, 1),
            exponent => ((1 << self.fraction) + fraction, exponent),
        };
        let number = f64::from(size) * 2f64.powi(power - self.bias - self.fraction);
        // What would be larger than the largest stands for no number.
        match number > self.most {
            true if self.exponent == 5 && fraction == 0 => f64::INFINITY * sign,
            true => f64::NAN,
            false => number * sign,
        }
    }
}
