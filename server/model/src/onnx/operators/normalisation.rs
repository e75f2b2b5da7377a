//! BatchNormalization, with the means and variances of training.

use super::super::call::Call;
use super::super::context::{Context, Value};
use crate::Error;

pub(super) fn batch(context: &mut Context, call: &Call<'_>) -> Result<Vec<Value>, Error> {
    call.only(&["epsilon", "momentum", "spatial", "training_mode"])?;
    // Before opset 14 the number of results said so.
    let more = call.node.output.iter().skip(1).any(|name| !name.is_empty());
    if call.node.flag("training_mode", false)? || (call.opset < 14 && more) {
        let said = if call.opset < 14 { "its form with five results" } else { "training_mode = 1" };
        return Err(call.error(format!(
            "{said} is not supported, for it takes the mean of each batch, in training: export the network for inference \
             (eval mode)"
        )));
    }
    let x = call.secret(0)?;
    let channels = match x.shape.as_slice() {
        [_, channels, ..] => *channels,
        _ => 1,
    };
    // Before opset 9 statistics could be of every value instead of every channel.
    let per = if call.node.flag("spatial", true)? {
        channels
    } else {
        x.len() / x.shape.first().copied().unwrap_or(1).max(1)
    };
    let mut parameters = Vec::new();
    for (index, name) in [(1, "scale"), (2, "bias"), (3, "mean"), (4, "variance")] {
        let tensor = call.constant(index, name)?.ok_or_else(|| call.node.lacks(name))?;
        if tensor.len() != per {
            return Err(call.error(format!(
                "its {name} has shape {:?}, and [{per}] is needed, a value for each channel: export it again",
                tensor.shape
            )));
        }
        parameters.push(call.numbers(tensor)?);
    }
    let epsilon = call.node.float("epsilon")?.unwrap_or(1e-5);
    let [scale, bias, mean, variance] = parameters.as_slice() else {
        return Err(call.node.lacks("parameters"));
    };
    let mut affine = Vec::with_capacity(per);
    for (((scale, bias), mean), variance) in
        scale.iter().zip(bias.iter()).zip(mean.iter()).zip(variance.iter())
    {
        let gain = scale / (variance + epsilon).sqrt();
        if !gain.is_finite() {
            return Err(call.error("its variance is negative or zero: train or export the network again"));
        }
        affine.push((gain, bias - mean * gain));
    }
    let len = x.len();
    let rest: usize = x.shape.iter().skip(2).product();
    let run = if per == channels { rest.max(1) } else { 1 };
    let at = |place: usize| affine.get(place / run % per.max(1)).copied().unwrap_or((1.0, 0.0));
    let (gain, offset) = (0..len).map(at).unzip();
    let id = context.scale(&call.origin, x.id, gain, offset)?;
    Ok(vec![x.with(id, x.shape.clone()).into()])
}
