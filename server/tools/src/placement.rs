//! Who has the weights of which layer: by rule, or by a file.
//!
//! Servers are called `gateway` and `remote-1`, `remote-2`, and so on. A placement file is TOML: a line for each layer
//! that is not placed by rule, its name (or its number, from 1, in quotes) and who has it. Layers of the same name are
//! copies of one, for an import gives every other a name of its own, and are placed together.
//!
//! ```toml
//! "conv1" = "gateway"                 # has its weights in clear
//! "3" = ["remote-1", "remote-2"]      # share them, and none of them knows them
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use seco_model::Placement;
use serde::Deserialize;

use crate::Error;
use crate::split::SplitOptions;

/// Who has a layer, in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Who {
    One(String),
    Several(Vec<String>),
}

/// The number of a server from its name.
fn server(name: &str, servers: usize) -> Result<usize, String> {
    let number = match name {
        "gateway" => Some(0),
        _ => name.strip_prefix("remote-").and_then(|n| n.parse().ok()).filter(|&n| n > 0),
    };
    number.filter(|&n| n < servers).ok_or_else(|| {
        let last = servers.saturating_sub(1);
        format!("there is no server {name:?}: give gateway or remote-1 to remote-{last}")
    })
}

/// Two or more servers that share, in order.
fn sharing(names: &[String], servers: usize) -> Result<Placement, String> {
    let mut numbers = names.iter().map(|name| server(name, servers)).collect::<Result<Vec<_>, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() != names.len() || numbers.len() < 2 {
        return Err(format!("{} cannot share: give two or more different servers", names.join(", ")));
    }
    Ok(Placement::Shared(numbers))
}

/// The placements of layers with these names.
///
/// # Errors
/// [`Error::Usage`] for servers or layers that there are not.
pub(crate) fn placements(layers: &[&str], options: &SplitOptions) -> Result<Vec<Placement>, Error> {
    let SplitOptions { servers, gateway_layers, shared, placement, .. } = options;
    // A network of pools and ReLUs has none, and one is the default.
    if *gateway_layers > layers.len().max(1) {
        return Err(Error::Usage(format!(
            "the gateway cannot hold {gateway_layers} linear layers: the model has {}",
            layers.len()
        )));
    }
    let mut placements = seco_model::paper_placements(layers.len(), *servers, *gateway_layers);
    if !shared.is_empty() {
        let sharing = sharing(shared, *servers).map_err(|what| Error::Usage(format!("--shared: {what}")))?;
        placements.iter_mut().skip(*gateway_layers).for_each(|placement| *placement = sharing.clone());
    }
    // What an import makes of one layer, a copy with other factors, is no secret from whoever has the first.
    for at in 0..layers.len() {
        if let Some(first) = layers.iter().take(at).position(|name| *name == layers[at]) {
            placements[at] = placements[first].clone();
        }
    }
    if let Some(path) = placement {
        let text = fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
        by_file(&text, path, layers, *servers, &mut placements)?;
    }
    Ok(placements)
}

/// Changes placements as a file says. `path` is for messages.
///
/// # Errors
/// [`Error::Usage`] for what is no placement file, and servers or layers that there are not.
pub fn by_file(
    text: &str,
    path: &Path,
    layers: &[&str],
    servers: usize,
    placements: &mut [Placement],
) -> Result<(), Error> {
    let wrong = |what: String| Error::Usage(format!("{}: {what}", path.display()));
    let file: BTreeMap<String, Who> = toml::from_str(text).map_err(|e| {
        wrong(format!(
            "it is no list of LAYER = \"gateway\" or [\"remote-1\", \"remote-2\"]: {}",
            e.message()
        ))
    })?;
    let mut placed = BTreeMap::new();
    for (name, who) in file {
        let number = name.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|&n| n < layers.len());
        let named: Vec<usize> = (0..layers.len()).filter(|&at| layers[at] == name).collect();
        let numbered = number.filter(|_| named.is_empty()).map(|number| layers[number]);
        let Some(layer) = numbered.or_else(|| named.first().map(|&at| layers[at])) else {
            return Err(wrong(format!("there is no layer {name:?}: they are {}", layers.join(", "))));
        };
        if let Some(before) = placed.insert(layer, name.clone()) {
            return Err(wrong(format!(
                "{before:?} and {name:?} are the same layer, or copies of one: keep one line"
            )));
        }
        let places: Vec<usize> = (0..layers.len()).filter(|&at| layers[at] == layer).collect();
        let placement = match who {
            Who::One(name) => server(&name, servers).map(Placement::Held),
            Who::Several(names) => sharing(&names, servers),
        };
        let placement = placement.map_err(|what| wrong(format!("layer {name}: {what}")))?;
        for at in places {
            placements[at] = placement.clone();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_places_layers_by_name_and_number() {
        let layers = ["conv1", "conv2", "fc"];
        let place = |text: &str| {
            let mut placements = seco_model::paper_placements(3, 4, 1);
            by_file(text, Path::new("p.toml"), &layers, 4, &mut placements).map(|()| placements)
        };
        let shared = |servers: &[usize]| Placement::Shared(servers.to_vec());
        assert_eq!(place("").unwrap(), [Placement::Held(0), shared(&[1, 2, 3]), shared(&[1, 2, 3])]);
        let text = "conv1 = [\"remote-2\", \"gateway\"]\n\"3\" = \"remote-3\"";
        assert_eq!(place(text).unwrap(), [shared(&[0, 2]), shared(&[1, 2, 3]), Placement::Held(3)]);
        let twice = ["a", "b", "a"];
        let mut placements = seco_model::paper_placements(3, 3, 1);
        by_file("a = \"remote-1\"", Path::new("p.toml"), &twice, 3, &mut placements).unwrap();
        assert_eq!(placements, [Placement::Held(1), shared(&[1, 2]), Placement::Held(1)]);
        // By the number of either.
        for number in [1, 3] {
            let mut placements = seco_model::paper_placements(3, 3, 1);
            let text = format!("\"{number}\" = \"remote-2\"");
            by_file(&text, Path::new("p.toml"), &twice, 3, &mut placements).unwrap();
            assert_eq!(placements, [Placement::Held(2), shared(&[1, 2]), Placement::Held(2)], "{number}");
        }
        for (text, part) in [
            ("conv9 = \"gateway\"", "no layer \"conv9\": they are conv1, conv2, fc"),
            ("\"0\" = \"gateway\"", "no layer"),
            ("\"4\" = \"gateway\"", "no layer"),
            (
                "fc = \"remote-4\"",
                "layer fc: there is no server \"remote-4\": give gateway or remote-1 to remote-3",
            ),
            ("fc = \"remote-0\"", "no server"),
            ("fc = [\"remote-1\"]", "two or more"),
            ("fc = [\"remote-1\", \"remote-1\"]", "two or more"),
            ("fc = 3", "it is no list"),
            ("fc = \"gateway\"\n\"3\" = \"remote-1\"", "\"3\" and \"fc\" are the same layer"),
            ("fc", "it is no list"),
        ] {
            let error = place(text).unwrap_err().to_string();
            assert!(error.contains(part) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
