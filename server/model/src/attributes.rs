//! A node's attributes, and what is said about those that the importer does not know.

use crate::Error;
use crate::chain::Origin;
use crate::geometry::MAX_TENSOR;
use crate::onnx::{AttributeProto, NodeProto, TensorProto, attribute_type, printable};

/// A node's attributes, checked for their types.
pub(crate) struct Attributes<'a> {
    pub node: &'a NodeProto,
    pub origin: Origin,
}

impl<'a> Attributes<'a> {
    /// Refuses attributes of other names: they may change what the operator means.
    pub(crate) fn only(&self, names: &[&str]) -> Result<(), Error> {
        match self.node.attribute.iter().find(|a| !names.contains(&a.name.as_str())) {
            Some(a) => Err(self.origin.error(format!(
                "attribute {} is not supported, for it may change the meaning ({} are): export without it",
                printable(&a.name),
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ))),
            None => Ok(()),
        }
    }

    fn get(&self, name: &str, kind: i32) -> Result<Option<&'a AttributeProto>, Error> {
        match self.node.attribute.iter().find(|a| a.name == name) {
            Some(a) if a.r#type != kind => {
                let what =
                    format!("attribute {name} is of the wrong type: the file is damaged, so export it again");
                Err(self.origin.error(what))
            }
            found => Ok(found),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, Error> {
        Ok(self.get(name, attribute_type::TENSOR)?.and_then(|a| a.t.as_ref()))
    }

    /// An integer that must be one of `allowed`, the first being the default.
    pub(crate) fn int(&self, name: &str, allowed: &[i64]) -> Result<i64, Error> {
        let value = self.get(name, attribute_type::INT)?.map(|a| a.i);
        let value = value.or(allowed.first().copied()).unwrap_or_default();
        match allowed.contains(&value) {
            true => Ok(value),
            false => {
                let remedy = match name {
                    "group" => "use an ordinary convolution in place of a grouped or depthwise one",
                    "ceil_mode" => "pool with ceil_mode=False",
                    "transA" => "exchange the factors",
                    "axis" => "flatten all axes behind the batch",
                    _ => "export it so",
                };
                let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                Err(self.origin.error(format!("{name} = {value} is not supported, {allowed} is: {remedy}")))
            }
        }
    }

    /// A float that must be 1.
    pub(crate) fn one(&self, name: &str) -> Result<(), Error> {
        match self.get(name, attribute_type::FLOAT)?.map_or(1.0, |a| a.f) {
            1.0 => Ok(()),
            value => {
                let what = if name == "alpha" { "weights" } else { "bias" };
                Err(self
                    .origin
                    .error(format!("{name} = {value} is not supported, 1 is: multiply the {what} by it")))
            }
        }
    }

    /// `N` numbers of at least `least`, or `default`.
    pub(crate) fn sizes<const N: usize>(
        &self,
        name: &str,
        least: usize,
        default: [usize; N],
    ) -> Result<[usize; N], Error> {
        let Some(attribute) = self.get(name, attribute_type::INTS)? else { return Ok(default) };
        let given = &attribute.ints;
        if given.len() != N {
            let shown = given.iter().take(8).collect::<Vec<_>>();
            return Err(self.origin.error(format!(
                "{name} = {shown:?} is not for two spatial axes (height and width), which alone are supported and take \
                 {N} numbers: make it two-dimensional"
            )));
        }
        let sizes: Option<Vec<usize>> = given
            .iter()
            .map(|&v| usize::try_from(v).ok().filter(|v| (least..MAX_TENSOR).contains(v)))
            .collect();
        sizes.and_then(|s| s.try_into().ok()).ok_or_else(|| {
            self.origin.error(format!(
                "{name} = {given:?} is not possible here: each number must be at least {least}"
            ))
        })
    }

    /// Padding of a node with two spatial axes: top, left, bottom, right.
    pub(crate) fn pads(&self) -> Result<[usize; 4], Error> {
        let auto = self.get("auto_pad", attribute_type::STRING)?.map_or(&b""[..], |a| &a.s);
        let pads = self.sizes("pads", 0, [0; 4])?;
        match auto {
            b"" | b"NOTSET" => Ok(pads),
            b"VALID" if pads == [0; 4] => Ok(pads),
            auto => Err(self.origin.error(format!(
                "auto_pad = {} is not supported, NOTSET and VALID are: export it with the padding as numbers (pads)",
                printable(&String::from_utf8_lossy(auto))
            ))),
        }
    }

    /// Refuses dilation.
    pub(crate) fn undilated(&self) -> Result<(), Error> {
        match self.sizes("dilations", 1, [1; 2])? {
            [1, 1] => Ok(()),
            dilations => Err(self.origin.error(format!(
                "dilations = {dilations:?} are not supported, [1, 1] are: use an undilated, larger kernel"
            ))),
        }
    }
}
