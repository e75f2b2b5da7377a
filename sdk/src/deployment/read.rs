//! Reading the deployment file key by key. Deserialization by `serde` reads the same, and takes 80 KB more of a phone.

use super::{Address, CertificatePin, Deployment, Gateway, Model, Server, Update, check_version, problem};
use crate::{Error, Last, Output, Quantise, Result, hex};
use seco_core::{ModelId, SEALING_KEY_LEN, ServerSealingKey};
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) fn deployment(text: &str) -> Result<Deployment> {
    let document = DeTable::parse(text)
        .map_err(|error| at(text, error.span().map(|span| span.start), error.message().replace('\n', " ")))?;
    let mut file = Table { text, start: None, rest: document.into_inner() };
    let version = file.number("version")?;
    // Of another version, whatever else is in it would be called a mistake.
    check_version(version)?;
    let mut table = file.table("gateway")?;
    let gateway = Gateway {
        address: table.string("address", |text| text.parse().ok(), Address::FORMAT)?,
        server_name: table.string("server_name", |text| Some(text.to_owned()), "a name")?,
        pins: table.list("pins", |pin| {
            pin.string(|text| CertificatePin::try_from(text.to_owned()).ok(), CertificatePin::FORMAT)
        })?,
    };
    table.end()?;
    let (model, others) = if version == Deployment::VERSION_OF_SEVERAL {
        let mut models = file.list("models", |value| model(value.table()?, true))?.into_iter();
        let first = models.next().ok_or_else(|| problem("models", "a file of version 5 has some"))?;
        (first, models.collect())
    } else {
        (model(file.table("model")?, false)?, Vec::new())
    };
    let update = if file.has("update") { Some(update(file.table("update")?)?) } else { None };
    if file.has("signature") {
        // Of use to those who have the file before: see `Deployment::successor`.
        file.string("signature", hex::decode_array::<64>, "an Ed25519 signature, 128 hexadecimal digits")?;
    }
    let servers = file.list("servers", |value| {
        let mut table = value.table()?;
        let server = Server {
            name: table.string("name", |text| Some(text.to_owned()), "a name")?,
            sealing_key: table.string("sealing_key", sealing_key, SEALING_KEY_FORMAT)?,
        };
        table.end().map(|()| server)
    })?;
    file.end()?;
    Ok(Deployment { version, gateway, model, others, update, servers })
}

#[inline(never)]
fn model(mut table: Table<'_>, named: bool) -> Result<Model> {
    let name = |text: &str| Some(text.to_owned());
    let model = Model {
        name: if named { Some(table.string("name", name, "a name")?) } else { None },
        id: table.string("id", |text| hex::decode_array(text).map(ModelId), "64 hexadecimal digits")?,
        input_shape: table.list("input_shape", Value::number)?,
        input_bits: table.number("input_bits")?,
        calibrated: table.pair("calibrated")?,
        output_width: table.number("output_width")?,
        fraction: if table.has("fraction") { Some(table.number("fraction")?) } else { None },
        quantise: if table.has("quantise") { Some(quantise(table.table("quantise")?)?) } else { None },
        outputs: table.list("outputs", output)?,
    };
    table.end().map(|()| model)
}

fn update(mut table: Table<'_>) -> Result<Update> {
    let update = Update {
        owner: table.string("owner", hex::decode_array, "an Ed25519 key, 64 hexadecimal digits")?,
        serial: table.number("serial")?,
    };
    table.end().map(|()| update)
}

fn quantise(mut table: Table<'_>) -> Result<Quantise> {
    let quantise =
        Quantise { scale: table.list("scale", Value::real)?, offset: table.list("offset", Value::real)? };
    table.end().map(|()| quantise)
}

fn output(value: Value<'_>) -> Result<Output> {
    let mut table = value.table()?;
    let output = Output {
        name: table.string("name", |text| Some(text.to_owned()), "a name")?,
        shape: table.list("shape", Value::number)?,
        scale: table.take("scale")?.real()?,
        last: if table.has("last") { table.string("last", last, LAST_FORMAT)? } else { Last::None },
        classes: if table.has("classes") { table.list("classes", class)? } else { Vec::new() },
    };
    table.end().map(|()| output)
}

fn class(value: Value<'_>) -> Result<String> {
    value.string(|text| Some(text.to_owned()), "a list of names")
}

const LAST_FORMAT: &str =
    "\"none\", \"softmax\", \"log_softmax\", \"sigmoid\", \"tanh\", \"argmax\" or \"index\"";

fn last(text: &str) -> Option<Last> {
    Some(match text {
        "none" => Last::None,
        "softmax" => Last::Softmax,
        "log_softmax" => Last::LogSoftmax,
        "sigmoid" => Last::Sigmoid,
        "tanh" => Last::Tanh,
        "argmax" => Last::Argmax,
        "index" => Last::Index,
        _ => return None,
    })
}

const SEALING_KEY_FORMAT: &str = "an X-Wing public key, 2432 hexadecimal digits";
const _: () = assert!(2 * SEALING_KEY_LEN == 2432);

fn sealing_key(text: &str) -> Option<ServerSealingKey> {
    ServerSealingKey::from_bytes(&hex::decode(text)?).ok()
}

/// A problem at a byte of the file.
#[cold]
#[inline(never)]
fn at(text: &str, start: Option<usize>, what: String) -> Error {
    let line = start.and_then(|start| text.get(..start)).map(|before| before.matches('\n').count() + 1);
    problem(line.map_or("file".into(), |line| format!("line {line}")), what)
}

/// A table whose keys have not all been read.
struct Table<'t> {
    text: &'t str,
    /// Its first byte; none for the file itself.
    start: Option<usize>,
    rest: DeTable<'t>,
}

impl<'t> Table<'t> {
    fn take(&mut self, key: &'static str) -> Result<Value<'t>> {
        match self.rest.remove(key) {
            Some(value) => Ok(Value { text: self.text, key, value }),
            None => Err(at(self.text, self.start, format!("`{key}` is missing"))),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key)
    }

    fn string<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Option<T>, form: &str) -> Result<T> {
        self.take(key)?.string(read, form)
    }

    fn number<T: FromStr>(&mut self, key: &'static str) -> Result<T> {
        self.take(key)?.number()
    }

    fn table(&mut self, key: &'static str) -> Result<Self> {
        self.take(key)?.table()
    }

    fn list<T>(&mut self, key: &'static str, read: impl Fn(Value<'t>) -> Result<T>) -> Result<Vec<T>> {
        let list = self.take(key)?;
        let start = list.value.span().start;
        match list.value.into_inner() {
            DeValue::Array(values) => {
                values.into_iter().map(|value| read(Value { text: self.text, key, value })).collect()
            }
            _ => Err(at(self.text, Some(start), format!("`{key}` is not a list"))),
        }
    }

    /// Two numbers, if the key is there.
    fn pair<T: FromStr>(&mut self, key: &'static str) -> Result<Option<[T; 2]>> {
        if !self.has(key) {
            return Ok(None);
        }
        let numbers = self.list(key, Value::number)?;
        let pair = numbers.try_into().map(Some);
        pair.map_err(|_| at(self.text, self.start, format!("`{key}` is not a list of two numbers")))
    }

    fn end(self) -> Result<()> {
        match self.rest.into_iter().next() {
            Some((key, _)) => {
                let name = key.get_ref().chars().take(40).collect::<String>();
                Err(at(self.text, Some(key.span().start), format!("unknown key {name:?}")))
            }
            None => Ok(()),
        }
    }
}

/// What belongs to `key`, or one element of it.
struct Value<'t> {
    text: &'t str,
    key: &'static str,
    value: Spanned<DeValue<'t>>,
}

impl<'t> Value<'t> {
    #[cold]
    fn wrong(&self, form: &str) -> Error {
        at(self.text, Some(self.value.span().start), format!("`{}` is not {form}", self.key))
    }

    fn string<T>(self, read: impl Fn(&str) -> Option<T>, form: &str) -> Result<T> {
        self.value.get_ref().as_str().and_then(read).ok_or_else(|| self.wrong(form))
    }

    fn number<T: FromStr>(self) -> Result<T> {
        let number = self.value.get_ref().as_integer().filter(|number| number.radix() == 10);
        number.and_then(|number| number.as_str().parse().ok()).ok_or_else(|| self.wrong("a number in range"))
    }

    /// A number with or without a point.
    fn real(self) -> Result<f64> {
        let value = self.value.get_ref();
        let integer = value.as_integer().filter(|number| number.radix() == 10).map(|number| number.as_str());
        let text = value.as_float().map(|number| number.as_str()).or(integer);
        text.and_then(|text| text.parse().ok()).ok_or_else(|| self.wrong("a number"))
    }

    fn table(self) -> Result<Table<'t>> {
        let start = Some(self.value.span().start);
        match self.value.into_inner() {
            DeValue::Table(rest) => Ok(Table { text: self.text, start, rest }),
            _ => Err(at(self.text, start, format!("`{}` is not a table", self.key))),
        }
    }
}
