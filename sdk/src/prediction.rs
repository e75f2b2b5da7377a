//! What a model's answer means: numbers, probabilities, classes. All of it is computed when it is asked for.

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};
use std::fmt;
use std::sync::Arc;

/// What the model says about an input. Shown, it is what its [answers](Answer) say, each after its name if there are
/// several.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The integers of all outputs, one output after the other; what they stand for say [`Prediction::answers`] and
    /// [`Prediction::values`].
    pub logits: Vec<i32>,
    /// The class that the first output tells: that of the largest value, the first of several; of one value before a
    /// sigmoid 1 if it is positive, otherwise 0. Of any other single value, which is no class, 0.
    pub label: usize,
    /// Whether the input has values beyond those that calibrated the model ([`Model::calibrated`](crate::Model)). Its
    /// numbers may then have been too large for the servers' rings, and the answer wrong. Found on the device; no
    /// server learns it. `false` where the deployment does not tell the calibrated range.
    pub outside_calibration: bool,
    /// The model's outputs, as the deployment file has them; at least one.
    pub outputs: Arc<[Output]>,
}

/// A part of a model's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Output {
    /// Name in the network's file.
    pub name: String,
    /// Extents without the batch axis; their product is the number of values. None of one value.
    pub shape: Vec<usize>,
    /// What an integer is multiplied by to be the network's number; positive.
    pub scale: f64,
    /// What the network does last. The servers leave it out, and the device makes up for it.
    pub last: Last,
    /// Names of the classes: as many as values; of one value before a sigmoid two. Or none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}

/// What a network does last with an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Last {
    /// Nothing: the numbers are its answer.
    #[default]
    None,
    /// Softmax over the last axis of more than one value.
    Softmax,
    /// Its logarithm.
    LogSoftmax,
    /// The logistic function of every value.
    Sigmoid,
    /// The hyperbolic tangent of every value.
    Tanh,
    /// The index of the largest value.
    Argmax,
    /// The same, and the servers do it: the index is their answer, and nothing of the values.
    Index,
}

/// What an output is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One of several classes.
    Classes,
    /// Yes (1) or no (0), by one value before a sigmoid.
    Binary,
    /// Numbers.
    Values,
}

/// One output of a [`Prediction`]. Shown, it is for people: a class, with its probability if there is one, or some of
/// the numbers. Serialized, it is for programs: everything there is to tell.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'p> {
    /// Its name, shape and meaning.
    pub output: &'p Output,
    /// Its integers.
    pub integers: &'p [i32],
    /// Whether it is the first, to which the label belongs.
    first: bool,
}

/// Numbers of an output that are shown.
const SHOWN: usize = 8;

impl Prediction {
    pub(crate) fn new(logits: Vec<i32>, outside_calibration: bool, outputs: Arc<[Output]>) -> Self {
        let mut prediction = Self { logits, label: 0, outside_calibration, outputs };
        let label = prediction.answers().next().map_or(0, |answer| answer.label());
        prediction.label = label;
        prediction
    }

    /// The outputs with their numbers, in the order of the network.
    pub fn answers(&self) -> impl Iterator<Item = Answer<'_>> {
        let mut rest = self.logits.as_slice();
        self.outputs.iter().enumerate().map(move |(index, output)| {
            let (integers, others) =
                rest.split_at_checked(output.len().unwrap_or(usize::MAX)).unwrap_or_default();
            rest = others;
            Answer { output, integers, first: index == 0 }
        })
    }

    /// The network's numbers by output, before what it does last ([`Output::last`]).
    #[must_use]
    pub fn values(&self) -> Vec<Vec<f64>> {
        self.answers().map(|answer| answer.values()).collect()
    }

    /// [`Answer::probabilities`] of the first output.
    #[must_use]
    pub fn probabilities(&self) -> Option<Vec<f64>> {
        self.answers().next()?.probabilities()
    }

    /// What the first output is to be read as.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.answers().next().map_or(Kind::Values, |answer| answer.kind())
    }

    /// The label's name, where the deployment file gives names.
    #[must_use]
    pub fn class_name(&self) -> Option<&str> {
        self.outputs.first()?.classes.get(self.label).map(String::as_str)
    }
}

impl Output {
    /// Number of values; `None` where that is no number.
    pub(crate) fn len(&self) -> Option<usize> {
        crate::shape::values(&self.shape)
    }

    /// Number of classes that can have names.
    pub(crate) fn nameable(&self) -> Option<usize> {
        self.len().map(|len| if len == 1 && self.last == Last::Sigmoid { 2 } else { len })
    }

    /// Extent of the axis that a softmax runs over. All axes behind it are of 1, so its values lie together.
    fn row(&self) -> usize {
        self.shape.iter().rev().copied().find(|extent| *extent > 1).unwrap_or(1)
    }
}

impl<'p> Answer<'p> {
    /// What it is to be read as. Plain numbers are classes if they have names, or if they are a row at the first
    /// output, for classifiers often end before their softmax.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let (len, row) = (self.output.len().unwrap_or_default(), self.output.row());
        match self.output.last {
            Last::Sigmoid if len == 1 => Kind::Binary,
            Last::Index if len == 1 => Kind::Classes,
            Last::Index => Kind::Values,
            _ if len < 2 || len != row => Kind::Values,
            _ if !self.output.classes.is_empty() => Kind::Classes,
            Last::Softmax | Last::LogSoftmax | Last::Argmax => Kind::Classes,
            Last::None if self.first => Kind::Classes,
            _ => Kind::Values,
        }
    }

    /// Index of the largest value, the first of several; of one value before a sigmoid 1 if it is positive, otherwise
    /// 0.
    #[must_use]
    pub fn label(&self) -> usize {
        match *self.integers {
            [index, ..] if self.output.last == Last::Index => {
                // Servers that say no index say what they like.
                let index = (f64::from(index) * self.output.scale).round();
                index.clamp(0.0, f64::from(u32::MAX)) as usize
            }
            [value] => usize::from(self.output.last == Last::Sigmoid && value > 0),
            _ => argmax(self.integers),
        }
    }

    /// The label's name, where the deployment file gives names.
    #[must_use]
    pub fn class_name(&self) -> Option<&'p str> {
        self.output.classes.get(self.label()).map(String::as_str)
    }

    /// The network's numbers, before what it does last.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.integers.iter().map(|integer| f64::from(*integer) * self.output.scale).collect()
    }

    /// Probabilities, where the network ends with a softmax or its logarithm (of every row they add up to 1) or a
    /// sigmoid (each for itself). `None` of all other networks.
    #[must_use]
    pub fn probabilities(&self) -> Option<Vec<f64>> {
        if self.integers.is_empty() {
            return None;
        }
        let mut values = self.values();
        match self.output.last {
            Last::Softmax | Last::LogSoftmax => {
                for row in values.chunks_mut(self.output.row()) {
                    let total = exponentials(row).1;
                    row.iter_mut().for_each(|value| *value /= total);
                }
            }
            Last::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
            Last::None | Last::Tanh | Last::Argmax | Last::Index => return None,
        }
        Some(values)
    }

    /// What the network itself gives: its numbers with what it does last. Of an argmax, one index for every row.
    #[must_use]
    pub fn finished(&self) -> Vec<f64> {
        let mut values = self.values();
        match self.output.last {
            Last::None => {}
            Last::Index => values.iter_mut().for_each(|value| *value = value.round()),
            Last::Softmax | Last::Sigmoid => return self.probabilities().unwrap_or_default(),
            Last::LogSoftmax => {
                for row in values.chunks_mut(self.output.row()) {
                    let (most, total) = exponentials(&mut row.to_vec());
                    row.iter_mut().for_each(|value| *value -= most + total.ln());
                }
            }
            Last::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
            Last::Argmax => {
                values = self.integers.chunks(self.output.row()).map(|row| argmax(row) as f64).collect();
            }
        }
        values
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, answer) in self.answers().enumerate() {
            if self.outputs.len() > 1 {
                write!(f, "{}{} ", if index == 0 { "" } else { "; " }, answer.output.name)?;
            }
            write!(f, "{answer}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, label, probabilities) = (self.kind(), self.label(), self.probabilities());
        if kind == Kind::Values {
            let numbers = self.finished();
            let places = if matches!(self.output.last, Last::Argmax | Last::Index) { 0 } else { 4 };
            for (index, number) in numbers.iter().take(SHOWN).enumerate() {
                write!(f, "{}{number:.places$}", if index == 0 { "" } else { " " })?;
            }
            let rest = numbers.len().saturating_sub(SHOWN);
            return if rest > 0 { write!(f, " and {rest} more") } else { Ok(()) };
        }
        match self.class_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{label}")?,
        }
        let probability = match (kind, probabilities.as_deref()) {
            // Of one value, that of a yes.
            (Kind::Binary, Some([yes])) => Some(if label == 1 { *yes } else { 1.0 - yes }),
            (Kind::Classes, Some(all)) => all.get(label).copied(),
            _ => None,
        };
        probability.map_or(Ok(()), |share| write!(f, " ({:.1}%)", 100.0 * share))
    }
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let kind = self.kind();
        let mut to = to.serialize_struct("Answer", 9)?;
        to.serialize_field("name", &self.output.name)?;
        to.serialize_field("shape", &self.output.shape)?;
        to.serialize_field("kind", &kind)?;
        // Values are no class.
        to.serialize_field("label", &(kind != Kind::Values).then(|| self.label()))?;
        to.serialize_field("class", &self.class_name())?;
        to.serialize_field("last", &self.output.last)?;
        to.serialize_field("values", &self.values())?;
        to.serialize_field("finished", &self.finished())?;
        to.serialize_field("probabilities", &self.probabilities())?;
        to.end()
    }
}

/// Replaces every value by its exponential, all divided by that of the largest, so that none is infinite. Returns the
/// largest value and the sum.
fn exponentials(row: &mut [f64]) -> (f64, f64) {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|value| *value = (*value - most).exp());
    (most, row.iter().sum())
}

/// Index of the first maximum.
fn argmax(values: &[i32]) -> usize {
    // `max_by_key` prefers the last of several.
    values.iter().enumerate().rev().max_by_key(|(_, value)| **value).map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(shape: &[usize], scale: f64, last: Last) -> Output {
        Output { name: "out".into(), shape: shape.into(), scale, last, classes: Vec::new() }
    }

    fn prediction(logits: &[i32], outputs: &[Output]) -> Prediction {
        Prediction::new(logits.into(), false, outputs.into())
    }

    fn close(one: &[f64], other: &[f64]) {
        assert_eq!(one.len(), other.len());
        let near = one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near, "{one:?} {other:?}");
    }

    #[test]
    fn the_label_is_the_first_maximum() {
        assert_eq!(argmax(&[-5, 3, 3, -7]), 1);
        assert_eq!(argmax(&[i32::MIN; 3]), 0);
        assert_eq!(argmax(&[i32::MIN, i32::MAX]), 1);
    }

    #[test]
    fn every_last_operator_is_made_up_for() {
        // Of 0, ln 2 and ln 5, whose exponentials are 1, 2 and 5.
        let scale = 1e-6;
        let logits = [0, 693_147, 1_609_438];
        let of = |last| prediction(&logits, &[output(&[3, 1, 1], scale, last)]);
        let near = |one: &[f64], other: &[f64]| {
            assert!(one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5), "{one:?} {other:?}");
            assert_eq!(one.len(), other.len());
        };
        let shares = [0.125, 0.25, 0.625];
        near(&of(Last::Softmax).probabilities().unwrap(), &shares);
        near(&of(Last::LogSoftmax).probabilities().unwrap(), &shares);
        near(&of(Last::Sigmoid).probabilities().unwrap(), &[0.5, 2.0 / 3.0, 5.0 / 6.0]);
        for last in [Last::None, Last::Tanh, Last::Argmax] {
            assert_eq!(of(last).probabilities(), None);
        }
        let finished = |last| of(last).answers().next().unwrap().finished();
        near(&finished(Last::None), &[0.0, 2f64.ln(), 5f64.ln()]);
        near(&finished(Last::Softmax), &shares);
        near(&finished(Last::LogSoftmax), &shares.map(f64::ln));
        near(&finished(Last::Sigmoid), &[0.5, 2.0 / 3.0, 5.0 / 6.0]);
        near(&finished(Last::Tanh), &[0.0, 0.6, 24.0 / 26.0]);
        let index =
            prediction(&[7 << 4, 0], &[output(&[], 1.0 / 16.0, Last::Index), output(&[], 1.0, Last::None)]);
        let first = index.answers().next().unwrap();
        assert_eq!((first.finished(), first.kind(), index.label), (vec![7.0], Kind::Classes, 7));
        for last in [Last::None, Last::Softmax, Last::LogSoftmax, Last::Sigmoid, Last::Tanh, Last::Argmax] {
            near(&of(last).values()[0], &[0.0, 2f64.ln(), 5f64.ln()]);
            assert_eq!(of(last).label, 2);
        }
    }

    #[test]
    fn a_softmax_runs_over_the_last_axis_and_does_not_overflow() {
        let told = prediction(&[0, 0, i32::MAX, 0, 7, 7], &[output(&[3, 2, 1], 1e9, Last::Softmax)]);
        close(&told.probabilities().unwrap(), &[0.5, 0.5, 1.0, 0.0, 0.5, 0.5]);
        let logs = told.answers().next().unwrap();
        assert!(logs.finished().iter().all(|value| value.is_finite()));
        let one = prediction(&[-9], &[output(&[], 2.0, Last::Softmax)]);
        assert_eq!((one.probabilities(), one.kind()), (Some(vec![1.0]), Kind::Values));
        let far = prediction(&[i32::MIN, i32::MAX], &[output(&[2], 1.0, Last::Sigmoid)]);
        assert_eq!(far.probabilities().unwrap(), [0.0, 1.0]);
    }

    #[test]
    fn one_value_is_a_number_or_yes_or_no() {
        for (value, label, probability) in
            [(3, 1, 0.9525741268224334), (0, 0, 0.5), (-3, 0, 0.04742587317756678)]
        {
            let mut yes = output(&[1], 1.0, Last::Sigmoid);
            yes.classes = vec!["no".into(), "yes".into()];
            let told = prediction(&[value], &[yes]);
            assert_eq!((told.kind(), told.label), (Kind::Binary, label));
            assert_eq!(told.class_name(), Some(["no", "yes"][label]));
            close(&told.probabilities().unwrap(), &[probability]);
        }
        let told = prediction(&[-40], &[output(&[1], 0.0625, Last::None)]);
        assert_eq!((told.kind(), told.label, told.values()), (Kind::Values, 0, vec![vec![-2.5]]));
        assert_eq!((told.probabilities(), told.class_name()), (None, None));
    }

    #[test]
    fn outputs_follow_each_other_each_with_its_scale() {
        let mut scores = output(&[2], 0.5, Last::Softmax);
        scores.classes = vec!["nothing".into(), "face".into()];
        let outputs = [scores, output(&[2, 2], 0.1, Last::None), output(&[], 1.0, Last::Sigmoid)];
        let told = prediction(&[-2, 4, 10, 20, 30, -40, 1], &outputs);
        assert_eq!((told.label, told.class_name(), told.kind()), (1, Some("face"), Kind::Classes));
        let values = told.values();
        assert_eq!(values.len(), 3);
        close(&values[0], &[-1.0, 2.0]);
        close(&values[1], &[1.0, 2.0, 3.0, -4.0]);
        close(&values[2], &[1.0]);
        let kinds: Vec<_> = told.answers().map(|answer| (answer.kind(), answer.label())).collect();
        assert_eq!(kinds, [(Kind::Classes, 1), (Kind::Values, 2), (Kind::Binary, 1)]);
    }

    #[test]
    fn plain_rows_are_classes_at_the_first_output_or_with_names() {
        let kinds = |outputs: &[Output]| {
            let told = prediction(&[0; 8], outputs);
            told.answers().map(|answer| answer.kind()).collect::<Vec<_>>()
        };
        let mut named = output(&[4], 1.0, Last::None);
        named.classes = vec!["a".into(); 4];
        assert_eq!(kinds(&[output(&[4], 1.0, Last::None), named]), [Kind::Classes; 2]);
        assert_eq!(
            kinds(&[output(&[1, 4], 1.0, Last::None), output(&[4], 1.0, Last::None)]),
            [Kind::Classes, Kind::Values]
        );
        assert_eq!(kinds(&[output(&[4, 2], 1.0, Last::Softmax)]), [Kind::Values]);
        assert_eq!(kinds(&[output(&[8], 1.0, Last::Tanh)]), [Kind::Values]);
        assert_eq!(kinds(&[output(&[8], 1.0, Last::Argmax)]), [Kind::Classes]);
    }

    #[test]
    fn an_argmax_has_one_index_for_every_row() {
        let finished = |logits: &[i32], shape: &[usize], last| {
            let told = prediction(logits, &[output(shape, 0.5, last)]);
            told.answers().next().unwrap().finished()
        };
        let rows = [3, -1, 0, 9, 4, 4, -7, -6];
        assert_eq!(finished(&rows, &[4, 2], Last::Argmax), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(finished(&rows, &[2, 4, 1], Last::Argmax), [3.0, 0.0]);
        assert_eq!(finished(&rows, &[8], Last::Argmax), [3.0]);
        assert_eq!(finished(&[5], &[], Last::Argmax), [0.0]);
    }

    #[test]
    fn an_index_is_rounded_and_never_below_the_first() {
        let of = |integer: i32, scale| {
            let told = prediction(&[integer], &[output(&[], scale, Last::Index)]);
            (told.label, told.answers().next().unwrap().finished()[0])
        };
        assert_eq!(of(7, 1.0), (7, 7.0));
        // A scale that is no binary fraction: 29 times 0.1, then divided, is 2.9 or so.
        assert_eq!(of(29, 0.1), (3, 3.0));
        assert_eq!(of(-3, 1.0).0, 0);
        assert_eq!(of(i32::MAX, 1e300).0, u32::MAX as usize);
    }

    /// Parts that do not belong together are no crash.
    #[test]
    fn of_integers_that_are_missing_nothing_is_told() {
        let told = prediction(&[1, 2], &[output(&[3], 1.0, Last::Softmax)]);
        assert_eq!((told.label, told.probabilities(), told.values()), (0, None, vec![Vec::new()]));
    }

    #[test]
    fn it_is_shown_for_people_and_serialized_for_programs() {
        for (logits, shape, last, classes, said) in [
            (&[5, 3][..], &[2][..], Last::None, &[][..], "0"),
            (&[5, 3], &[2], Last::None, &["cat", "dog"], "cat"),
            (&[5, 3], &[2], Last::Softmax, &["cat", "dog"], "cat (73.1%)"),
            (&[5], &[1], Last::Sigmoid, &[], "1 (92.4%)"),
            (&[-5], &[1], Last::Sigmoid, &["no", "yes"], "no (92.4%)"),
            (&[5], &[1], Last::None, &[], "2.5000"),
            (&[2], &[1], Last::Tanh, &[], "0.7616"),
            (&[1, 2, 4, 3], &[2, 2], Last::Argmax, &[], "1 0"),
            (&[4, 2], &[2], Last::Index, &[], "2 1"),
            (
                &[2; 12],
                &[2, 6],
                Last::None,
                &[],
                "1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 and 4 more",
            ),
        ] {
            let mut output = output(shape, 0.5, last);
            output.classes = classes.iter().map(ToString::to_string).collect();
            assert_eq!(prediction(logits, &[output]).to_string(), said);
        }
        let mut second = output(&[1], 0.5, Last::Tanh);
        second.name = "other".into();
        let two = prediction(&[5, 3, 8], &[output(&[2], 0.5, Last::Softmax), second]);
        assert_eq!(two.to_string(), "out 0 (73.1%); other 0.9993");
        let answers = two.answers().collect::<Vec<_>>();
        let told = |index: usize| serde_json::to_value(answers[index]).unwrap();
        let (class, value) = (told(0), told(1));
        assert_eq!(
            (&class["name"], &class["kind"], &class["last"]),
            (&"out".into(), &"classes".into(), &"softmax".into())
        );
        assert_eq!((&class["label"], &class["class"]), (&0.into(), &serde_json::Value::Null));
        assert_eq!((&class["values"], &class["shape"]), (&vec![2.5, 1.5].into(), &vec![2].into()));
        assert_eq!(class["finished"], class["probabilities"]);
        assert!((class["finished"][0].as_f64().unwrap() - 0.731_058_578_630_004_9).abs() < 1e-12);
        assert_eq!((&value["kind"], &value["label"]), (&"values".into(), &serde_json::Value::Null));
        assert_eq!((&value["values"], &value["finished"]), (&vec![4.0].into(), &vec![4f64.tanh()].into()));
    }
}
