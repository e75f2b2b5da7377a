//! Deployment files of a cluster's models, joined into one that names them all.

use std::path::PathBuf;
use std::str::FromStr;

use seco_sdk::{Deployment, Model};

use super::deployment::{FileOptions, check_new, written};
use crate::Error;

/// Which files are joined.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinOptions {
    /// What applications call each model, and its deployment file: all of the same gateway and servers.
    #[arg(required = true, value_name = "NAME=FILE")]
    pub models: Vec<Named>,
    /// Where the file goes, and who may replace it.
    #[command(flatten)]
    pub file: FileOptions,
}

/// A model's name and its deployment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What applications call it.
    pub name: String,
    /// The deployment file of this model alone.
    pub file: PathBuf,
}

impl FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Named, Self::Err> {
        match text.split_once('=') {
            Some((name, file)) if !name.trim().is_empty() && !file.is_empty() => {
                Ok(Named { name: name.to_owned(), file: file.into() })
            }
            _ => Err("not NAME=FILE: digits=digits.toml, say"),
        }
    }
}

/// Writes a deployment file that names several models. What the files say of owners and numbers is not taken over: the new
/// one is signed with `--owner`, or by nobody.
pub fn join(options: &JoinOptions) -> Result<Deployment, Error> {
    let JoinOptions { models, file } = options;
    check_new(&file.out, file.force)?;
    let read = |named: &Named| {
        let shown = named.file.display();
        let whole = Deployment::from_file(&named.file).map_err(|e| Error::Usage(format!("{shown}: {e}")))?;
        if whole.version == Deployment::VERSION_OF_SEVERAL {
            return Err(Error::Usage(format!("{shown}: names its models already: give the files of each")));
        }
        Ok(whole)
    };
    let all = models.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
    let mut pairs = all.into_iter().zip(models);
    let Some((mut joined, first)) = pairs.next() else {
        return Err(Error::Usage("give a file for each model".to_owned()));
    };
    joined.version = Deployment::VERSION_OF_SEVERAL;
    joined.model.name = Some(first.name.clone());
    for (other, named) in pairs {
        let what = if other.gateway.address != joined.gateway.address {
            "the gateway's address is"
        } else if other.gateway != joined.gateway {
            "the gateway's pins are"
        } else if other.servers != joined.servers {
            "the servers' names or sealing keys are"
        } else {
            joined.others.push(Model { name: Some(named.name.clone()), ..other.model });
            continue;
        };
        return Err(Error::Usage(format!(
            "{}: {what} not what {} has: one file is of one cluster, at one address, with the keys of now",
            named.file.display(),
            first.file.display()
        )));
    }
    written(joined, file)
}
