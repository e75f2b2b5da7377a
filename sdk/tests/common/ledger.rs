//! The record of all requests that reached a gateway, and what must hold of it.

use super::Shared;
use seco_core::SessionId;
use std::collections::{HashMap, HashSet};

/// What is wrong with a ledger.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// A session's number came twice.
    NumberTwice(SessionId, u64),
    /// Two requests that differ in nothing but their inputs: the pads are the same.
    PadTwice(SessionId, u64),
    /// The input is none of the device's: it was masked with other pads than the number says.
    OtherPad(SessionId, u64),
}

impl Shared {
    /// Checks every request that came: `inputs` are what the device may have asked about. Gives the number of
    /// requests.
    pub fn audit(&self, inputs: &[Vec<u8>]) -> Result<usize, Fault> {
        let (seen, masked) = (self.seen.lock().unwrap(), self.inputs.lock().unwrap());
        let (sessions, names) = (self.sessions.lock().unwrap(), self.names.lock().unwrap());
        assert_eq!(seen.len(), masked.len());
        let (mut numbers, mut pads) = (HashSet::new(), HashMap::new());
        for ((handle, counter), masked) in seen.iter().zip(masked.iter()) {
            let (session, keys) = (names[*handle as usize], &sessions[*handle as usize].keys);
            let mut pad = vec![0; masked.len()];
            keys.iter().for_each(|key| key.apply_input_pad(*counter, &mut pad).unwrap());
            let input: Vec<u8> = masked.iter().zip(&pad).map(|(masked, pad)| masked ^ pad).collect();
            if !inputs.contains(&input) {
                return Err(Fault::OtherPad(session, *counter));
            }
            if pads.insert(pad, input.clone()).is_some_and(|earlier| earlier != input) {
                return Err(Fault::PadTwice(session, *counter));
            }
            // One request that arrives twice gives nothing away, and yet must not.
            if !numbers.insert((session, *counter)) {
                return Err(Fault::NumberTwice(session, *counter));
            }
        }
        Ok(seen.len())
    }
}
