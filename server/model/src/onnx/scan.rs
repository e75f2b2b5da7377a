//! How much a file would become in memory: counted before it is decoded.
//!
//! An empty message takes two bytes of a file and some hundreds in memory, and a packed integer one byte and eight.

use crate::MAX_VALUES;

/// Most fields of all messages together.
const MAX_FIELDS: usize = 1 << 20;
/// Most bytes of packed integers: half floats are written so, with up to three bytes each.
const MAX_PACKED: usize = 3 * MAX_VALUES;

/// The messages that the decoder makes.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Tensor,
    Value,
    Sparse,
    Other,
}

impl Message {
    /// What a field of bytes holds, if that is a message with fields of its own.
    fn child(self, field: u64) -> Option<Message> {
        Some(match (self, field) {
            (Message::Model, 7) => Message::Graph,
            (Message::Model, 25) => Message::Function,
            (Message::Model, 8) | (Message::Function, 9) => Message::Other,
            (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Function, 11) => Message::Attribute,
            (Message::Graph, 5) | (Message::Attribute, 5) => Message::Tensor,
            (Message::Graph, 11 | 12) => Message::Value,
            (Message::Graph, 15) => Message::Sparse,
            (Message::Sparse, 1) => Message::Other,
            // Types, shapes and dimensions are nested a few levels.
            (Message::Value, 1 | 2) => Message::Value,
            (Message::Node, 5) => Message::Attribute,
            (Message::Tensor, 13) => Message::Other,
            _ => return None,
        })
    }

    fn packed(self, field: u64) -> bool {
        matches!((self, field), (Message::Tensor, 1 | 5 | 7 | 11) | (Message::Attribute, 8))
    }
}

/// Whether the file can be decoded in bounded memory. Damaged files, where counting ends early, are left to the decoder, which
/// ends there too.
pub(crate) fn is_bounded(bytes: &[u8]) -> bool {
    let (mut fields, mut packed) = (0, 0);
    count(Message::Model, bytes, 0, &mut fields, &mut packed);
    fields <= MAX_FIELDS && packed <= MAX_PACKED
}

fn count(message: Message, mut bytes: &[u8], depth: usize, fields: &mut usize, packed: &mut usize) {
    while !bytes.is_empty() && *fields <= MAX_FIELDS {
        *fields += 1;
        let Some(key) = varint(&mut bytes) else { return };
        let length = match key & 7 {
            0 => {
                if varint(&mut bytes).is_none() {
                    return;
                }
                continue;
            }
            1 => 8,
            5 => 4,
            2 => match varint(&mut bytes).and_then(|n| usize::try_from(n).ok()) {
                Some(n) => n,
                None => return,
            },
            // Groups: the fields in them are counted as if they were this message's.
            3 | 4 => 0,
            _ => return,
        };
        let Some((field, rest)) = bytes.split_at_checked(length) else { return };
        bytes = rest;
        if key & 7 == 2 {
            match message.child(key >> 3) {
                Some(child) if depth < 8 => count(child, field, depth + 1, fields, packed),
                _ if message.packed(key >> 3) => *packed = packed.saturating_add(length),
                _ => {}
            }
        }
    }
}

/// Takes an integer of seven bits a byte from the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127).checked_shl(shift).unwrap_or(0);
        if byte < 128 {
            return Some(value);
        }
    }
    None
}
