//! CPU time of the units of work that [`seco_protocol::cost`] counts, measured in some seconds by what `seco bench he`,
//! `relu` and `net` measure at length, or as it was on one machine.

use std::time::Duration;

use seco_model::{Dense, Geometry};
use seco_protocol::{Layer, OT_PARAMETER};
use seco_tools::check::rates::{Gates, Rates};

use super::{Setting, he, net, relu};
use crate::Error;

/// ReLUs of a short measurement.
const RELUS: usize = 16_384;
/// Bundles of them: as in a pool that is filled, memory is new for what is kept, and used again for the rest.
const BUNDLES: u8 = 2;
/// CPU time of one layer's measurement.
const LONG_ENOUGH: Duration = Duration::from_millis(300);
/// Mebibytes sent.
const MEGABYTES: usize = 64;

/// Measures, for ReLUs of `width` bits and clusters of these sizes: two seconds or so, and one for each size.
pub fn measure(width: u32, sizes: &[usize]) -> Result<Rates, Error> {
    let mut rates = Rates { measured: true, byte: net::short(MEGABYTES)? / 2e9, ..Rates::default() };
    encryption(&mut rates, width)?;
    rates.gates = sizes.iter().map(|&servers| gates(width, servers)).collect::<Result<_, _>>()?;
    Ok(rates)
}

/// Homomorphic encryption: three layers, of 1 to 8 and 8 to 8 and 8 to 1 ciphertexts. One ciphertext alone would have
/// the machine for itself, which those of a server do not.
fn encryption(rates: &mut Rates, width: u32) -> Result<(), Error> {
    let setting = Setting { servers: 3, width: width as u8 };
    let (mut rows, mut encrypt, mut answer, mut transform) = (Vec::new(), 0.0, 0.0, 0.0);
    let layers = [(1, 65_536), (65_536, 8), (65_536, 1)];
    for (inputs, outputs) in layers {
        let geometry = Geometry::Dense(Dense { inputs, outputs });
        let (plan, times, runs) = he::short(&geometry, setting, LONG_ENOUGH)?;
        let of = |cpu: Duration, units: usize| cpu.as_secs_f64() / (f64::from(runs) * units.max(1) as f64);
        let [made, added] = [plan.output_ciphertexts(), 3 * plan.input_ciphertexts()];
        encrypt += of(times.encrypt.cpu, added) / layers.len() as f64;
        answer += of(times.answer.cpu, 2 * made) / layers.len() as f64;
        transform += of(times.weights.cpu, plan.weight_polynomials()) / layers.len() as f64;
        let both = of((times.multiply + times.decode).cpu, 1);
        rows.push([added as f64, plan.products() as f64, made as f64, both]);
    }
    (rates.encrypt, rates.answer, rates.transform) = (encrypt, answer, transform);
    if let Some([add, product, make]) = solve(rows) {
        (rates.add, rates.product, rates.make) = (add.max(0.0), product.max(0.0), make.max(0.0));
    }
    Ok(())
}

/// A short layer of ReLUs between processes.
fn gates(width: u32, servers: usize) -> Result<Gates, Error> {
    let layer = Layer {
        count: RELUS,
        width,
        mask_width: width,
        shift: 8.min(width.saturating_sub(2)),
        servers,
        ot_parameter: OT_PARAMETER,
    };
    let outcomes = relu::short(&layer, BUNDLES)?;
    let ands = layer.and_gates().max(1) as f64;
    let mean = |evaluators: bool, online: bool| {
        let (mut sum, mut count) = (0.0, 0);
        for (server, outcome) in outcomes.iter().enumerate() {
            if (server == layer.evaluator()) == evaluators {
                let ahead = outcome.preprocessing.cpu / u32::from(BUNDLES);
                sum += (if online { outcome.online.cpu } else { ahead }).as_secs_f64();
                count += 1;
            }
        }
        sum / (ands * f64::from(count.max(1)))
    };
    Ok(Gates::of(servers, [mean(false, false), mean(true, false), mean(false, true), mean(true, true)]))
}

/// Three unknowns from three equations, each of three coefficients and a sum, by Cramer's rule; none if they are not
/// independent.
fn solve(rows: Vec<[f64; 4]>) -> Option<[f64; 3]> {
    let rows: [[f64; 4]; 3] = rows.try_into().ok()?;
    let determinant = |columns: [usize; 3]| {
        let [a, b, c] = rows.map(|row| columns.map(|column| row[column]));
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
    };
    let all = determinant([0, 1, 2]);
    let unknowns = [[3, 1, 2], [0, 3, 2], [0, 1, 3]].map(|columns| determinant(columns) / all);
    (all.abs() > 1e-9).then_some(unknowns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_equations() {
        let rows = vec![[1.0, 2.0, 3.0, 14.0], [0.0, 1.0, 1.0, 5.0], [2.0, 0.0, 1.0, 5.0]];
        let close = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(solve(rows).unwrap(), [1.0, 2.0, 3.0]));
        assert_eq!(solve(vec![[1.0, 1.0, 1.0, 1.0]; 3]), None);
    }
}
