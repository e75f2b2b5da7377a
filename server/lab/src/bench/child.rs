//! Processes that a measurement starts, so that each party's CPU time and memory are its own.

use std::fmt::Display;
use std::io::{BufRead as _, Read as _, Write as _, stdin, stdout};
use std::marker::PhantomData;
use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use zeroize::Zeroizing;

use crate::Error;

/// The line that [`wait_for_go`] waits for.
const GO: &str = "go\n";

/// A party's process, which says words of type `W`; killed when dropped.
pub struct Process<W> {
    name: String,
    child: Child,
    /// Its end tells the process that nothing more comes.
    input: ChildStdin,
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
        let length = (job.len() as u64).to_le_bytes();
        input.write_all(&length).await.map_err(io)?;
        input.write_all(&job).await.map_err(io)?;
        Ok(Self { name, child, input, output: BufReader::new(output).lines(), words: PhantomData })
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

    /// Lets it go on, where it waits with [`wait_for_go`].
    pub async fn go(&mut self) -> Result<(), Error> {
        self.input.write_all(GO.as_bytes()).await.map_err(|e| failed(&self.name, e))
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
    let what = |e| failed("a party's job", e);
    let mut input = stdin().lock();
    let mut length = [0; 8];
    input.read_exact(&mut length).map_err(what)?;
    let mut job = Zeroizing::new(Vec::new());
    input.take(u64::from_le_bytes(length)).read_to_end(&mut job).map_err(what)?;
    postcard::from_bytes(&job).map_err(|e| failed("a party's job", e))
}

/// Waits until the process that started this one lets it go on; an error once that one is gone.
///
/// On a thread of its own, so that connections stay alive meanwhile.
pub async fn wait_for_go() -> Result<(), Error> {
    let read = || {
        let mut line = String::new();
        stdin().lock().read_line(&mut line).map(|_| line)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(line)) if line == GO => Ok(()),
        _ => Err(failed("a party", "nobody told it to go on")),
    }
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
