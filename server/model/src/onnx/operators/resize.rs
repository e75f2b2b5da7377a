//! Resize and Upsample: sizes, and places of the nearest values; what lies between values is in `interpolate`.
//!
//! Sizes and places are computed in single precision, as whoever runs the file does: 10 values times 0.7 are 7, and in
//! double precision, where that factor is a little less, they would be 6.

use super::super::call::Call;
use super::super::context::{Context, Value};
use super::super::node::axis;
use super::super::places::product;
use super::super::proto::printable;
use super::interpolate::{is_mode, linear};
use crate::Error;

/// How a place of the result is turned into one of the input.
#[derive(Clone, Copy, PartialEq)]
enum Nearest {
    /// Of earlier operator sets: down where there are more values, up where there are fewer.
    Simple,
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// Until opset 9, and Resize of opset 10.
pub(super) fn upsample(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["mode", "scales"])?;
    let is_linear = is_linear(call)?;
    let scales = match call.node.floats("scales")? {
        Some(scales) => scales.iter().map(|&s| f64::from(s)).collect(),
        None => factors(call, 1)?.ok_or_else(|| call.node.lacks("scales"))?,
    };
    let x = call.any_secret(0)?;
    let sizes = scaled(call, &x.shape, &scales)?;
    let nearest = (!is_linear).then_some(Nearest::Simple);
    resized(context, call, &scales, &sizes, b"asymmetric", nearest)
}

/// Whether it is the linear mode, by its names of all versions, or else nearest.
fn is_linear(call: &Call<'_>) -> Result<bool, Error> {
    match call.node.string("mode")?.unwrap_or(b"nearest") {
        b"nearest" => Ok(false),
        b"linear" | b"bilinear" => Ok(true),
        mode => Err(call.error(format!(
            "mode = {} is not supported, nearest and linear are: use one of them, or ConvTranspose",
            printable(&String::from_utf8_lossy(mode))
        ))),
    }
}

/// The numbers of an input, if it has any.
fn factors(call: &Call<'_>, index: usize) -> Result<Option<Vec<f64>>, Error> {
    let Some(tensor) = call.constant(index, "sizes")?.filter(|tensor| tensor.len() > 0) else {
        return Ok(None);
    };
    Ok(Some(call.numbers(tensor)?.into_owned()))
}

/// Sizes at given factors.
fn scaled(call: &Call<'_>, shape: &[usize], scales: &[f64]) -> Result<Vec<usize>, Error> {
    let fits = scales.len() == shape.len() && scales.iter().all(|&s| s.is_finite() && s > 0.0 && s < 1e6);
    match fits {
        true => Ok(shape
            .iter()
            .zip(scales)
            .map(|(&size, &scale)| (size as f32 * scale as f32).floor() as usize)
            .collect()),
        false => Err(call.node.damaged(format!("its scales do not fit shape {shape:?}"))),
    }
}

pub(super) fn resize(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    if call.opset < 11 {
        return upsample(context, call);
    }
    call.only(&[
        "antialias",
        "axes",
        "coordinate_transformation_mode",
        "cubic_coeff_a",
        "exclude_outside",
        "extrapolation_value",
        "keep_aspect_ratio_policy",
        "mode",
        "nearest_mode",
    ])?;
    let shape = call.any_secret(0)?.shape.clone();
    let axes = match call.node.ints("axes")? {
        Some(axes) => axes
            .iter()
            .map(|&given| axis(given, shape.len()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| call.node.damaged("axes that the input does not have"))?,
        None => (0..shape.len()).collect(),
    };
    let (mut scales, mut sizes) = (vec![1.0; shape.len()], shape.clone());
    let wrong = || call.node.damaged("its scales or sizes do not fit its axes");
    if let Some(given) = factors(call, 2)? {
        let chosen: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
        let wanted = scaled(call, &chosen, &given)?;
        for ((&axis, scale), size) in axes.iter().zip(given).zip(wanted) {
            (scales[axis], sizes[axis]) = (scale, size);
        }
    } else {
        let given = factors(call, 3)?.ok_or_else(|| call.node.lacks("scales and no sizes"))?;
        if given.len() != axes.len() || given.iter().any(|&size| !(1.0..1e9).contains(&size)) {
            return Err(wrong());
        }
        let ratios = axes.iter().zip(&given).map(|(&axis, size)| size / shape[axis] as f64);
        let policy = call.node.string("keep_aspect_ratio_policy")?.unwrap_or(b"stretch");
        let common = match policy {
            b"stretch" => None,
            b"not_larger" => Some(ratios.clone().fold(f64::INFINITY, f64::min)),
            b"not_smaller" => Some(ratios.clone().fold(0.0, f64::max)),
            _ => return Err(wrong()),
        };
        for ((&axis, &size), ratio) in axes.iter().zip(&given).zip(ratios) {
            scales[axis] = common.unwrap_or(ratio);
            let kept = |common: f64| f64::from((common as f32 * shape[axis] as f32).round());
            sizes[axis] = common.map_or(size, kept) as usize;
        }
    }
    let mode = call.node.string("coordinate_transformation_mode")?.unwrap_or(b"half_pixel");
    if sizes == shape && scales.iter().all(|&scale| scale == 1.0) && mode != b"tf_crop_and_resize" {
        // Nothing changes, whatever lies between the values.
        return Ok(vec![call.any_secret(0)?.clone().into()]);
    }
    if is_linear(call)? {
        let shorter = scales.iter().any(|&scale| scale < 1.0) || sizes.iter().zip(&shape).any(|(a, b)| a < b);
        if shorter && call.node.flag("antialias", false)? {
            return Err(call.error(
                "antialias = 1 is not supported where fewer values are made: export it with 0, or use AveragePool",
            ));
        }
        return resized(context, call, &scales, &sizes, mode, None);
    }
    let nearest = match call.node.string("nearest_mode")?.unwrap_or(b"round_prefer_floor") {
        b"round_prefer_floor" => Nearest::PreferFloor,
        b"round_prefer_ceil" => Nearest::PreferCeil,
        b"floor" => Nearest::Floor,
        b"ceil" => Nearest::Ceil,
        _ => return Err(call.node.damaged("an unknown nearest_mode")),
    };
    resized(context, call, &scales, &sizes, mode, Some(nearest))
}

/// The values of the result: the nearest, or what lies between them.
fn resized(
    context: &mut Context,
    call: &Call<'_>,
    scales: &[f64],
    sizes: &[usize],
    mode: &[u8],
    nearest: Option<Nearest>,
) -> Result<Vec<Value>, Error> {
    let x = call.any_secret(0)?;
    let unknown = || {
        call.error(format!(
            "coordinate_transformation_mode = {} is not supported: use asymmetric or half_pixel",
            printable(&String::from_utf8_lossy(mode))
        ))
    };
    if !is_mode(mode) {
        return Err(unknown());
    }
    if sizes == x.shape {
        // Whatever the scales: so do those who run the file.
        return Ok(vec![x.clone().into()]);
    }
    let len = context.fits(&call.origin, sizes)?;
    let Some(nearest) = nearest else { return linear(context, call, scales, sizes, mode) };
    let mut places = Vec::new();
    for ((&from, &to), &scale) in x.shape.iter().zip(sizes).zip(scales) {
        let along: Option<Vec<usize>> =
            (0..to).map(|at| source(at, from, to, scale, mode, nearest)).collect();
        places.push(along.ok_or_else(unknown)?);
    }
    let all = product(&x.shape, &places);
    let id = context.gather(&call.origin, x.id, len, all.into_iter().map(Some))?;
    Ok(vec![x.with(id, sizes.to_vec()).into()])
}

/// Which place of an axis goes to a place of the result.
fn source(at: usize, from: usize, to: usize, scale: f64, mode: &[u8], nearest: Nearest) -> Option<usize> {
    // As long as before is as before, whatever the mode.
    if from == to && scale == 1.0 {
        return Some(at);
    }
    let (x, length, scale) = (at as f32, from as f32, scale as f32);
    let place = match mode {
        b"half_pixel" => (x + 0.5) / scale - 0.5,
        b"half_pixel_symmetric" => {
            let adjustment = to as f32 / (scale * length);
            length / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
        }
        b"pytorch_half_pixel" if to > 1 => (x + 0.5) / scale - 0.5,
        b"pytorch_half_pixel" => 0.0,
        b"align_corners" if to > 1 => x * (length - 1.0) / (to as f32 - 1.0),
        b"align_corners" => 0.0,
        b"asymmetric" => x / scale,
        b"tf_half_pixel_for_nn" => (x + 0.5) / scale,
        _ => return None,
    };
    let whole = match nearest {
        Nearest::Simple if scale < 1.0 => place.ceil(),
        Nearest::Simple | Nearest::Floor => place.floor(),
        Nearest::Ceil => place.ceil(),
        Nearest::PreferFloor => (place - 0.5).ceil(),
        Nearest::PreferCeil => (place + 0.5).floor(),
    };
    Some(whole.clamp(0.0, length - 1.0) as usize)
}
