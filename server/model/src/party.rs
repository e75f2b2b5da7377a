//! One server's part of a split model, and its file.
//!
//! A file is [`MAGIC`], the format's number (two bytes, least significant first), the postcard-encoded [`Body`] and
//! the SHA-256 of all that. The checksum is against accidents: who can write the file can write the checksum.

use core::fmt;
use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Architecture, Error, MAX_VALUES, MAX_WEIGHTS};

/// First bytes of a server's model file.
const MAGIC: &[u8; 8] = b"SECOpart";
/// The formats that are written and read. The first has a graph, the second an input of more than 8 bits a value too, which
/// servers that do not know it must not take for a byte, the third what an input's values stand for.
const FORMATS: RangeInclusive<u16> = 3..=5;
/// Bytes of the checksum.
const CHECKSUM: usize = 32;
/// Domain tag of a model id.
const ID_TAG: &[u8] = b"seco model id v2";

/// What one server multiplies with in one layer: values or additive shares mod `2^width`. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct LayerWeights {
    /// Weights in the layout of the layer's geometry, each below `2^width`.
    pub weights: Vec<u32>,
    /// One for each output value, each below `2^width`.
    pub bias: Vec<u32>,
}

/// One server's part of a model: what all servers know, and this server's weights and shares of weights.
pub struct PartyModel {
    architecture: Architecture,
    nonce: [u8; 32],
    id: [u8; 32],
    index: usize,
    layers: Vec<Option<LayerWeights>>,
}

/// A part as it is encoded. Words are four bytes each, least significant first: they are uniform, so there is nothing
/// to gain from variable lengths, and fixed ones decode without leaving copies in memory.
#[derive(Serialize, Deserialize)]
struct Body<'a> {
    architecture: Architecture,
    nonce: [u8; 32],
    index: usize,
    #[serde(borrow)]
    layers: Vec<Option<LayerBytes<'a>>>,
}

/// One layer's words as bytes.
#[derive(Serialize, Deserialize)]
struct LayerBytes<'a> {
    weights: &'a [u8],
    bias: &'a [u8],
}

impl PartyModel {
    /// Puts a part together and checks that it fits the architecture.
    pub(crate) fn assemble(
        architecture: Architecture,
        nonce: [u8; 32],
        index: usize,
        layers: Vec<Option<LayerWeights>>,
    ) -> Result<PartyModel, Error> {
        architecture.check()?;
        let bad = |what: &str| Err(Error::Shape(what.to_owned()));
        if index >= architecture.servers || layers.len() != architecture.placements.len() {
            return bad("a server's part that does not fit the architecture");
        }
        for (layer, held) in architecture.graph.layers().zip(&layers) {
            if held.is_some() != architecture.holders(layer.index).contains(&index) {
                return bad("a server's part with other layers than it holds");
            }
            let Some(held) = held else { continue };
            let sizes = (held.weights.len(), held.bias.len());
            if sizes != (layer.geometry.weights(), layer.geometry.outputs()) {
                return bad("a server's part with weights or biases of another size");
            }
            let all = held.weights.iter().chain(&held.bias).fold(0, |all, v| all | v);
            if u64::from(all) >> layer.width != 0 {
                return bad("a server's part with values wider than the layer");
            }
        }
        let id = model_id(&architecture, &nonce)?;
        Ok(PartyModel { architecture, nonce, id, index, layers })
    }

    /// Most bytes of a file: all weights and biases that a model may have, and room for its graph.
    pub const MAX_FILE: u64 = ((MAX_WEIGHTS + MAX_VALUES) * size_of::<u32>()) as u64;

    /// What all servers know.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Names this split of this model: equal on all its servers, and no other split's. SHA-256 of a domain tag, the
    /// postcard encoding of the architecture and the split's nonce.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Which server this part is for; 0 is the gateway.
    pub fn index(&self) -> usize {
        self.index
    }

    /// This server's weights in layer `i`, if it holds or shares them.
    pub fn layer(&self, i: usize) -> Option<&LayerWeights> {
        self.layers.get(i).and_then(Option::as_ref)
    }

    /// The part as a file. Secret.
    ///
    /// # Errors
    /// [`Error::Shape`] if it cannot be encoded, or has more than [`PartyModel::MAX_FILE`] bytes; none is known that does.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let words: Vec<Option<[Zeroizing<Vec<u8>>; 2]>> = self
            .layers
            .iter()
            .map(|l| l.as_ref().map(|l| [to_bytes(&l.weights), to_bytes(&l.bias)]))
            .collect();
        let layers = words.iter().map(|layer| {
            layer
                .as_ref()
                .map(|[weights, bias]| LayerBytes { weights: weights.as_slice(), bias: bias.as_slice() })
        });
        let body = Body {
            architecture: self.architecture.clone(),
            nonce: self.nonce,
            index: self.index,
            layers: layers.collect(),
        };
        let failed = |e: postcard::Error| Error::Shape(format!("encoding: {e}"));
        let size = postcard::experimental::serialized_size(&body).map_err(failed)?;
        if (MAGIC.len() + 2 + size + CHECKSUM) as u64 > PartyModel::MAX_FILE {
            return Err(Error::Shape(format!("a server's part of {size} bytes, which is too large")));
        }
        // All at once, for a vector that grows leaves copies of secrets behind.
        let mut file = Zeroizing::new(Vec::with_capacity(MAGIC.len() + 2 + size + CHECKSUM));
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&format(&self.architecture).to_le_bytes());
        let start = file.len();
        file.resize(start + size, 0);
        postcard::to_slice(&body, &mut file[start..]).map_err(failed)?;
        let checksum = Sha256::digest(&*file);
        file.extend_from_slice(&checksum);
        Ok(file)
    }

    /// Reads a file and checks everything in it.
    ///
    /// # Errors
    /// [`Error::NotModelFile`], [`Error::OlderModelFile`], [`Error::NewerModelFile`], [`Error::DamagedModelFile`] if it
    /// is cut short or its checksum is wrong, [`Error::Shape`] if it is what was written but makes no sense.
    pub fn from_bytes(file: &[u8]) -> Result<PartyModel, Error> {
        let rest = file.strip_prefix(MAGIC).ok_or(Error::NotModelFile)?;
        let (format, _) = rest.split_first_chunk::<2>().ok_or(Error::DamagedModelFile)?;
        let (found, oldest, newest) = (u16::from_le_bytes(*format), *FORMATS.start(), *FORMATS.end());
        match found {
            found if FORMATS.contains(&found) => {}
            0 => return Err(Error::DamagedModelFile),
            found if found < oldest => return Err(Error::OlderModelFile { found, supported: oldest }),
            found => return Err(Error::NewerModelFile { found, supported: newest }),
        }
        let (covered, checksum) = file.split_last_chunk::<CHECKSUM>().ok_or(Error::DamagedModelFile)?;
        let body = covered.get(MAGIC.len() + format.len()..).ok_or(Error::DamagedModelFile)?;
        if Sha256::digest(covered)[..] != checksum[..] {
            return Err(Error::DamagedModelFile);
        }
        let (body, rest) =
            postcard::take_from_bytes::<Body<'_>>(body).map_err(|_| Error::DamagedModelFile)?;
        if !rest.is_empty() {
            return Err(Error::DamagedModelFile);
        }
        let layers: Option<Vec<Option<LayerWeights>>> = body
            .layers
            .iter()
            .map(|layer| match layer {
                None => Some(None),
                Some(l) => {
                    Some(Some(LayerWeights { weights: from_bytes(l.weights)?, bias: from_bytes(l.bias)? }))
                }
            })
            .collect();
        let layers = layers.ok_or(Error::DamagedModelFile)?;
        let part = PartyModel::assemble(body.architecture, body.nonce, body.index, layers)?;
        if self::format(&part.architecture) != found {
            return Err(Error::Shape("a server's part whose format is not that of its input".to_owned()));
        }
        Ok(part)
    }
}

impl fmt::Debug for PartyModel {
    /// Tells whose part it is, never what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartyModel")
            .field("model", &self.architecture.graph.name)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LayerWeights {
    /// Tells the sizes only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerWeights({} weights, {} biases)", self.weights.len(), self.bias.len())
    }
}

/// The format of a part's file.
fn format(architecture: &Architecture) -> u16 {
    let input = &architecture.graph.input;
    match (&input.reals, input.value_bytes()) {
        (Some(_), _) => 5,
        (None, 1) => 3,
        (None, _) => 4,
    }
}

fn model_id(architecture: &Architecture, nonce: &[u8; 32]) -> Result<[u8; 32], Error> {
    let public = postcard::to_stdvec(architecture).map_err(|e| Error::Shape(format!("encoding: {e}")))?;
    Ok(Sha256::new().chain_update(ID_TAG).chain_update(public).chain_update(nonce).finalize().into())
}

fn to_bytes(words: &[u32]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 * words.len()));
    words.iter().for_each(|w| bytes.extend_from_slice(&w.to_le_bytes()));
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<Vec<u32>> {
    let (words, rest) = bytes.as_chunks();
    rest.is_empty().then(|| words.iter().map(|w| u32::from_le_bytes(*w)).collect())
}
