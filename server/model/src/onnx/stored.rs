//! Tensors as a file keeps them: in the message, as bytes or typed fields, or in files next to it.

use std::fs::{File, metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::proto::{TensorProto, printable, type_name};
use super::tensor::{Data, Element, MAX_AXES, MAX_CONSTANT, Tensor, from_half, stored_elements};

/// `TensorProto.DataLocation`: in another file.
const EXTERNAL: i32 = 1;

impl TensorProto {
    /// What messages call the tensor.
    fn called(&self) -> String {
        let name = printable(&self.name);
        if name.is_empty() { "a constant".to_owned() } else { format!("constant {name}") }
    }

    fn ragged(&self) -> String {
        format!(
            "{} does not have as many values as its shape says: the file is damaged, so export it again",
            self.called()
        )
    }

    fn element(&self) -> Result<Element, String> {
        Element::from_onnx(self.data_type).ok_or_else(|| {
            if type_name(self.data_type) == "STRING" {
                return format!(
                    "{} has values of type STRING, and numbers are read: export the network without what looks names \
                     up, say with the probabilities alone (select_model_inputs_outputs of skl2onnx, see server/IMPORT.md)",
                    self.called()
                );
            }
            format!(
                "{} has values of type {}, which is not read: export in float32",
                self.called(),
                type_name(self.data_type)
            )
        })
    }

    /// Shape and number of elements, which is small enough to be made.
    pub(crate) fn size(&self) -> Result<(Vec<usize>, usize), String> {
        let shape: Option<Vec<usize>> = self.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let size = shape.and_then(|shape| stored_elements(&shape).map(|len| (shape, len)));
        size.ok_or_else(|| {
            let shown: Vec<_> = self.dims.iter().take(MAX_AXES + 1).collect();
            format!(
                "{} has shape {shown:?}, which is impossible or more than {MAX_CONSTANT} values or {MAX_AXES} axes: use a \
                 smaller network",
                self.called()
            )
        })
    }

    /// How many bytes of a file its values take at least, if they are there at all.
    pub(crate) fn stored_bytes(&self) -> usize {
        match (self.data_location, self.element(), self.size()) {
            (EXTERNAL, Ok(element), Ok((_, len))) => element.bytes(len),
            _ => {
                let words = self.int32_data.len() + self.int64_data.len() + self.uint64_data.len();
                self.raw_data.len() + words + 4 * self.float_data.len() + 8 * self.double_data.len()
            }
        }
    }

    /// The file that keeps its values, if it is another one, and where in it they begin.
    pub(crate) fn elsewhere(&self) -> Option<(PathBuf, usize)> {
        let entry = |key: &str| self.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let file = Path::new(entry("location").unwrap_or_default());
        // However it is written.
        let file = file.components().filter(|part| *part != Component::CurDir).collect();
        let offset = entry("offset").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        (self.data_location == EXTERNAL).then_some((file, offset))
    }

    /// The constant, whose values must be in the message.
    pub(crate) fn tensor(&self) -> Result<Tensor, String> {
        let (shape, len) = self.size()?;
        let element = self.element()?;
        if self.segment.is_some() || self.data_location == EXTERNAL {
            return Err(format!(
                "{} is not kept in one piece: save the model with onnx.save_model",
                self.called()
            ));
        }
        let data = match self.raw_data.is_empty() {
            _ if element.is_small() => self.packed(element, len)?,
            true => self.typed(element)?,
            false => self.raw(element)?,
        };
        let tensor = Tensor { shape, data, element };
        if tensor.len() == len { Ok(tensor) } else { Err(self.ragged()) }
    }

    /// Elements of a small type, of which a byte of `raw_data` or an entry of the typed field may have several.
    fn packed(&self, element: Element, len: usize) -> Result<Data, String> {
        let typed = self.raw_data.is_empty();
        let count = if typed { self.int32_data.len() } else { self.raw_data.len() };
        if count != element.bytes(len) {
            return Err(self.ragged());
        }
        if !typed {
            return Ok(element.unpacked(self.raw_data.iter().copied(), len));
        }
        // As a byte of either sign.
        let byte = |&entry: &i32| Some(i64::from(entry)).filter(|byte| (-128..256).contains(byte));
        let bytes = self.in_range(self.int32_data.iter().map(byte))?;
        Ok(element.unpacked(bytes.into_iter().map(|byte| byte as u8), len))
    }

    /// Elements in `raw_data`.
    fn raw(&self, element: Element) -> Result<Data, String> {
        let bytes = &self.raw_data;
        Ok(match element {
            Element::Float16 => Data::Float(self.words(|b| from_half(u16::from_le_bytes(b)))?),
            Element::BFloat16 => Data::Float(self.words(|b| from_brain(u16::from_le_bytes(b)))?),
            Element::Float => Data::Float(self.words(|b| f32::from_le_bytes(b).into())?),
            Element::Double => Data::Float(self.words(f64::from_le_bytes)?),
            Element::Bool => Data::Int(bytes.iter().map(|&b| i64::from(b != 0)).collect()),
            Element::Int8 => Data::Int(bytes.iter().map(|&b| i64::from(b as i8)).collect()),
            Element::Uint8 => Data::Int(bytes.iter().map(|&b| b.into()).collect()),
            Element::Int16 => Data::Int(self.words(|b| i16::from_le_bytes(b).into())?),
            Element::Uint16 => Data::Int(self.words(|b| u16::from_le_bytes(b).into())?),
            Element::Int32 => Data::Int(self.words(|b| i32::from_le_bytes(b).into())?),
            Element::Uint32 => Data::Int(self.words(|b| u32::from_le_bytes(b).into())?),
            Element::Int64 => Data::Int(self.words(i64::from_le_bytes)?),
            Element::Uint64 => {
                let values = self.words(|b| i64::try_from(u64::from_le_bytes(b)).ok())?;
                Data::Int(self.in_range(values.into_iter())?)
            }
            _ => return Err(self.ragged()),
        })
    }

    /// Elements in the field of their type.
    fn typed(&self, element: Element) -> Result<Data, String> {
        let small = || {
            let (low, high) = match element {
                Element::Float16 | Element::BFloat16 => Element::Uint16.range(),
                element => element.range(),
            };
            let value = |&v: &i32| Some(i64::from(v)).filter(|v| (low..=high).contains(v));
            self.in_range(self.int32_data.iter().map(value))
        };
        Ok(match element {
            Element::Float => Data::Float(self.float_data.iter().map(|&v| v.into()).collect()),
            Element::Double => Data::Float(self.double_data.clone()),
            Element::Float16 => Data::Float(small()?.iter().map(|&v| from_half(v as u16)).collect()),
            Element::BFloat16 => Data::Float(small()?.iter().map(|&v| from_brain(v as u16)).collect()),
            Element::Int64 => Data::Int(self.int64_data.clone()),
            Element::Uint32 | Element::Uint64 => {
                let high = element.range().1;
                let value = |&v: &u64| i64::try_from(v).ok().filter(|&v| v <= high);
                Data::Int(self.in_range(self.uint64_data.iter().map(value))?)
            }
            _ => Data::Int(small()?),
        })
    }

    fn words<const N: usize, T>(&self, value: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
        let (words, rest) = self.raw_data.as_chunks::<N>();
        if rest.is_empty() { Ok(words.iter().map(|&w| value(w)).collect()) } else { Err(self.ragged()) }
    }

    fn in_range(&self, values: impl Iterator<Item = Option<i64>>) -> Result<Vec<i64>, String> {
        let values: Option<_> = values.collect();
        values.ok_or_else(|| {
            let (what, found) = (self.called(), type_name(self.data_type));
            format!("{what} has values outside of type {found}: the file is damaged, so export it again")
        })
    }

    /// Fetches values that are kept in another file, which must be in `folder`, into the message.
    pub(crate) fn fetch(&mut self, folder: Option<&Path>) -> Result<(), String> {
        if self.data_location != EXTERNAL {
            return Ok(());
        }
        let (name, (_, len), element) = (self.called(), self.size()?, self.element()?);
        let entry = |key: &str| self.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = entry("location").unwrap_or_default();
        let shown = printable(location);
        let number = |key: &str, default: u64| match entry(key) {
            None => Ok(default),
            Some(text) => text.trim().parse::<u64>().map_err(|_| {
                format!("{name} has {key} {:?}: the file is damaged, so export it again", printable(text))
            }),
        };
        let wanted = element.bytes(len);
        let (offset, length) = (number("offset", 0)?, number("length", wanted as u64)?);
        if length != wanted as u64 {
            return Err(self.ragged());
        }
        let Some(folder) = folder else {
            return Err(format!(
                "{name} is kept in another file ({shown}), which is not at hand: keep it next to the model, or save the \
                 model as one file with onnx.save_model(model, path, save_as_external_data=False)"
            ));
        };
        let missing = |e: std::io::Error| {
            format!("{name} is kept in file {shown}, which cannot be read ({e}): put it next to the model")
        };
        let outside = || {
            format!(
                "{name} is kept in file {shown:?}, which is not in the model's folder, and nothing else is read: save the \
                 model again with a plain file name for its weights"
            )
        };
        let relative = Path::new(location);
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || location.contains('\0') || !relative.components().all(plain) {
            return Err(outside());
        }
        // That of a plain file name is the current one.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = folder.canonicalize().map_err(missing)?;
        // Links are followed, and must not lead out.
        let path = folder.join(relative).canonicalize().map_err(missing)?;
        if !path.starts_with(&folder) {
            return Err(outside());
        }
        let size = metadata(&path).map_err(missing)?;
        if !size.is_file() {
            return Err(format!("{name} is kept in {shown}, which is no file: save the model again"));
        }
        if offset.checked_add(length).is_none_or(|end| end > size.len()) {
            return Err(format!("file {shown} ends before the values of {name}: copy it again"));
        }
        let mut file = File::open(&path).map_err(missing)?;
        file.seek(SeekFrom::Start(offset)).map_err(missing)?;
        let mut bytes = vec![0; wanted];
        file.read_exact(&mut bytes).map_err(missing)?;
        (self.raw_data, self.data_location) = (bytes, 0);
        Ok(())
    }
}

/// The number with these BFLOAT16 bits.
fn from_brain(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16).into()
}
