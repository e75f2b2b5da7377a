//! The record of all requests that reached a gateway, and what must hold of it.

use super::Shared;
use seco_core::IncarnationId;
use std::collections::{HashMap, HashSet};

/// What is wrong with a ledger.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// Two masked inputs differ as two inputs do, or not at all: whoever recorded them sees the difference.
    /// Indices of the requests, in order of arrival.
    Difference(usize, usize),
    /// The input is none of the device's: it was masked with other pads than the number says.
    OtherPad(IncarnationId, u64),
}

impl Shared {
    /// Checks every request that came: `inputs` are what the device may have asked about. Gives the number of
    /// requests.
    pub fn audit(&self, inputs: &[Vec<u8>]) -> Result<usize, Fault> {
        self.no_difference(inputs)?;
        let (seen, masked) = (self.seen.lock().unwrap(), self.inputs.lock().unwrap());
        let incarnations = self.incarnations.lock().unwrap();
        assert_eq!(seen.len(), masked.len());
        for ((handle, counter), masked) in seen.iter().zip(masked.iter()) {
            let known = &incarnations[*handle as usize];
            let mut input = masked.clone();
            known.keys.iter().for_each(|key| key.apply_input_pad(*counter, &mut input).unwrap());
            if !inputs.contains(&input) {
                return Err(Fault::OtherPad(known.incarnation.id(), *counter));
            }
        }
        Ok(seen.len())
    }

    /// What somebody can check who has the bytes alone, and no key. `a ^ b == x ^ y` says the same as
    /// `a ^ x == b ^ y`, which takes no pairs of requests to find.
    fn no_difference(&self, inputs: &[Vec<u8>]) -> Result<(), Fault> {
        let mut unmasked = HashMap::new();
        for (i, masked) in self.inputs.lock().unwrap().iter().enumerate() {
            for input in inputs {
                let pad: Vec<u8> = masked.iter().zip(input).map(|(masked, input)| masked ^ input).collect();
                if let Some(earlier) = unmasked.insert(pad, i) {
                    return Err(Fault::Difference(earlier, i));
                }
            }
        }
        Ok(())
    }

    /// On how many connections sessions were opened or resumed.
    pub fn connections(&self) -> usize {
        let incarnations = self.incarnations.lock().unwrap();
        incarnations.iter().map(|known| known.incarnation.exporter).collect::<HashSet<_>>().len()
    }

    /// How many incarnations there were.
    pub fn incarnations(&self) -> usize {
        self.incarnations.lock().unwrap().len()
    }
}
