//! The float network's and the integer network's answers to the same inputs.

use seco_model::numbers::label;
use seco_model::{Error, Executor, Imported, Range};

/// What some inputs showed.
pub struct Evidence {
    /// The samples, by number.
    pub samples: Vec<usize>,
    /// By sample: what the float network's and the integer network's first outputs say.
    pub labels: Vec<[usize; 2]>,
    /// Samples of which all outputs say the same.
    pub same: usize,
    /// Largest difference of a number of an answer, in parts of the float network's largest of that output.
    pub error: f64,
    /// Sums that wrapped around.
    pub wrapped: u64,
    /// By value of the integer network: least and largest of what ReLUs read, and of the answer.
    pub ranges: Vec<Range>,
}

/// One thread's.
#[derive(Default)]
struct Part {
    labels: Vec<[usize; 2]>,
    same: usize,
    /// By output: largest difference, and largest of the float network.
    outputs: Vec<[f64; 2]>,
    wrapped: u64,
    ranges: Vec<Range>,
}

impl Evidence {
    /// Runs both on the samples with these numbers, on all cores.
    pub fn gather(imported: &Imported, values: &[u8], samples: &[usize]) -> Result<Evidence, Error> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(samples.len()).max(1);
        let parts: Vec<Result<Part, Error>> = std::thread::scope(|scope| {
            let chunks = samples.chunks(samples.len().div_ceil(threads).max(1));
            let started: Vec<_> =
                chunks.map(|part| scope.spawn(move || some(imported, values, part))).collect();
            let panicked = || Err(Error::Shape("a thread ended early".to_owned()));
            started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
        });
        let mut all = Part::default();
        for part in parts {
            let part = part?;
            all.labels.extend(part.labels);
            all.same += part.same;
            all.wrapped += part.wrapped;
            all.outputs.resize(part.outputs.len().max(all.outputs.len()), [0.0; 2]);
            for (sum, own) in all.outputs.iter_mut().zip(part.outputs) {
                *sum = [sum[0].max(own[0]), sum[1].max(own[1])];
            }
            all.ranges.resize(part.ranges.len().max(all.ranges.len()), (0, 0));
            all.ranges
                .iter_mut()
                .zip(part.ranges)
                .for_each(|(all, own)| *all = (all.0.min(own.0), all.1.max(own.1)));
        }
        let part =
            |[difference, largest]: &[f64; 2]| difference / if *largest > 0.0 { *largest } else { 1.0 };
        Ok(Evidence {
            samples: samples.to_vec(),
            labels: all.labels,
            same: all.same,
            error: all.outputs.iter().map(part).fold(0.0, f64::max),
            wrapped: all.wrapped,
            ranges: all.ranges,
        })
    }
}

fn some(imported: &Imported, values: &[u8], samples: &[usize]) -> Result<Part, Error> {
    let model = &imported.chosen.model;
    let executor = Executor::new(model)?;
    let len = model.graph.input.len();
    let outputs = &model.graph.outputs;
    let mut part = Part {
        outputs: vec![[0.0; 2]; outputs.len()],
        ranges: vec![(0, 0); model.graph.nodes.len() + 1],
        ..Part::default()
    };
    for &sample in samples {
        let input = sample.checked_mul(len).and_then(|from| values.get(from..from + len));
        let input =
            input.ok_or_else(|| Error::Input("it has fewer values than its shape says".to_owned()))?;
        let reals: Vec<f64> = input.iter().map(|&byte| f64::from(byte)).collect();
        let float = imported.real.run(&reals, |_, _| {})?;
        let execution = executor.run(input)?;
        executor.ranges(input, &mut part.ranges)?;
        part.wrapped += execution.wrapped;
        let mut rest = &execution.logits[..];
        let (mut same, mut first) = (true, None);
        for ((output, float), most) in outputs.iter().zip(&float).zip(&mut part.outputs) {
            let (own, others) = rest.split_at(float.len().min(rest.len()));
            rest = others;
            let own: Vec<f64> = own.iter().map(|&integer| f64::from(integer) * output.scale).collect();
            for (a, b) in own.iter().zip(float) {
                *most = [most[0].max((a - b).abs()), most[1].max(b.abs())];
            }
            let both = [label(float), label(&own)];
            same &= both[0] == both[1];
            first.get_or_insert(both);
        }
        part.same += usize::from(same);
        part.labels.push(first.unwrap_or_default());
    }
    Ok(part)
}
