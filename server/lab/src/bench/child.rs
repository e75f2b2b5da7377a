//! Processes that a measurement starts, so that each party's CPU time and memory are its own.

use std::fmt::Display;
use std::io::{Read as _, Write as _, stdin, stdout};
use std::marker::PhantomData;
use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use zeroize::Zeroizing;

use crate::Error;

/// A party's process, which says words of type `W`; killed when dropped.
pub struct Process<W> {
    name: String,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    words: PhantomData<W>,
}

impl<W: DeserializeOwned> Process<W> {
    /// Starts `seco bench <subcommand>` and gives it its job. `name` is for messages.
    pub async fn start(name: String, subcommand: &str, job: &impl Serialize) -> Result<Self, Error> {
        let io = |e: std::io::Error| failed(&name, e);
        let mut command = Command::new(std::env::current_exe().map_err(io)?);
        command.args(["bench", subcommand]);
        // Its mistakes are told on standard error, which is this process's.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C in the terminal is for the process that was started, which then ends all.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(io)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&name, "no standard input or output"));
        };
        // It may hold keys.
        let job = Zeroizing::new(postcard::to_stdvec(job).map_err(|e| failed(&name, e))?);
        input.write_all(&job).await.map_err(io)?;
        // Dropped, it ends.
        drop(input);
        Ok(Self { name, child, output: BufReader::new(output).lines(), words: PhantomData })
    }

    /// Its number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next thing it says.
    pub async fn word(&mut self) -> Result<W, Error> {
        let line = self.output.next_line().await.map_err(|e| failed(&self.name, e))?;
        match line {
            Some(line) => serde_json::from_str(&line).map_err(|e| failed(&self.name, e)),
            // Unless it was killed, it has said why.
            None => Err(failed(&self.name, self.child.wait().await.map_err(|e| failed(&self.name, e))?)),
        }
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> Result<(), Error> {
        let status = self.child.wait().await.map_err(|e| failed(&self.name, e))?;
        if status.success() { Ok(()) } else { Err(failed(&self.name, status)) }
    }

    /// What was said does not fit.
    pub fn confused(&self) -> Error {
        failed(&self.name, "it said something unexpected")
    }
}

/// The job of this process, from its standard input.
pub fn job<J: DeserializeOwned>() -> Result<J, Error> {
    let mut job = Zeroizing::new(Vec::new());
    stdin().read_to_end(&mut job).map_err(|e| failed("a party's job", e))?;
    postcard::from_bytes(&job).map_err(|e| failed("a party's job", e))
}

/// One word on a line of standard output. Nobody listens any more when it cannot be written.
pub fn say(word: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(word) {
        let mut output = stdout().lock();
        let _ = writeln!(output, "{text}").and_then(|()| output.flush());
    }
}

/// What did not work, and why.
pub fn failed(what: &str, why: impl Display) -> Error {
    Error::Failed(format!("{what} failed: {why}"))
}
