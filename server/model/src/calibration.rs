//! How the ring widths were chosen, and whether what chose them is enough to trust (section 2 of PROTOCOL.md).

use core::fmt;

use crate::graph::ValueId;

/// Bits more than calibrated that the worst case's width may cost to be chosen by itself.
pub const AFFORDABLE_BITS: u32 = 2;
/// Fewer inputs than this say little about the others.
pub const FEW_INPUTS: usize = 10;

/// Which of its possible widths a sum gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WidthRule {
    /// The calibrated one, or the worst case's where that costs at most [`AFFORDABLE_BITS`] more.
    #[default]
    Affordable,
    /// What the calibration needs, and one bit of margin.
    Calibrated,
    /// What any input at all needs.
    Worst,
}

/// The widths of a sum: of what a ReLU reads, or of the answer. All in bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumWidth {
    /// Name of the node that makes it.
    pub name: String,
    /// Its value.
    pub value: ValueId,
    /// What the calibration takes.
    pub used: u32,
    /// What calibration alone would choose.
    pub calibrated: u32,
    /// What the worst case of all inputs needs, once the sums before have the widths that they have. May be above 32.
    pub worst: u32,
    /// What was chosen.
    pub width: u32,
    /// Whether an input may make it less than what a shift was lifted by, where it is cut off.
    pub clamped: bool,
}

impl SumWidth {
    /// Bits that the sums may grow beyond the calibration's before they wrap around.
    pub fn headroom(&self) -> u32 {
        self.width.saturating_sub(self.used)
    }

    /// Whether no input at all can make them wrap around or be cut off.
    pub fn is_safe(&self) -> bool {
        self.width >= self.worst && !self.clamped
    }
}

/// What a calibration saw and chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// Number of inputs.
    pub inputs: usize,
    /// Whether all of them are the same one.
    pub alike: bool,
    /// Smallest and largest value of all inputs.
    pub range: [u16; 2],
    /// Bits of an input value.
    pub bits: u32,
    /// The sums in order.
    pub sums: Vec<SumWidth>,
}

impl Calibration {
    /// What makes this calibration a poor one. Nothing where no width rests on it.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.sums.iter().all(SumWidth::is_safe) {
            return warnings;
        }
        if self.inputs < FEW_INPUTS {
            warnings.push(Warning::FewInputs(self.inputs));
        }
        let [least, most] = self.range;
        if least == most {
            warnings.push(Warning::OneValue(least));
            return warnings;
        }
        if self.alike && self.inputs > 1 {
            warnings.push(Warning::Alike);
        }
        let largest = crate::largest(self.bits);
        if self.range != [0, largest] {
            warnings.push(Warning::Narrow { least, most, largest });
        }
        warnings
    }
}

/// Why a calibration is a poor one. Shown, it goes on from "calibrated on".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// That many inputs, fewer than [`FEW_INPUTS`].
    FewInputs(usize),
    /// Nothing but this value.
    OneValue(u16),
    /// The same input again and again.
    Alike,
    /// Values that leave out a part of what the type can hold.
    Narrow {
        /// Smallest value.
        least: u16,
        /// Largest value.
        most: u16,
        /// Largest value that an input may have.
        largest: u16,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::FewInputs(1) => write!(f, "1 input only"),
            Warning::FewInputs(count) => write!(f, "{count} inputs only"),
            Warning::OneValue(value) => write!(f, "constant inputs (every value is {value})"),
            Warning::Alike => write!(f, "inputs that are all the same"),
            Warning::Narrow { least, most, largest } => {
                write!(f, "values from {least} to {most}, though an input's may be 0 to {largest}")
            }
        }
    }
}
