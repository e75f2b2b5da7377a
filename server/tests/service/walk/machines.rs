//! Machines for operators: network namespaces, each behind a line of its own to one router, with names for each other.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::{self, LIMIT};

/// Where `ip netns exec` looks for what is put over `/etc` in a namespace.
const NAMES: &str = "/etc/netns";

/// Runs a command; gives what it said if it failed.
fn done(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {said}", arguments.join(" ")))
}

/// Namespaces that go with it.
pub struct Network {
    prefix: String,
    made: Vec<String>,
}

impl Network {
    /// A machine for each name, known to all as `NAME.example`; or why that cannot be.
    pub fn new(names: &[&str]) -> Result<Network, String> {
        // By which operators look at their servers.
        done("curl", &["--version"])?;
        let prefix = format!("seco-walk-{}", std::process::id());
        let mut network = Network { prefix, made: Vec::new() };
        let router = network.add("router")?;
        let hosts: String = names
            .iter()
            .enumerate()
            .map(|(line, name)| format!("10.77.{line}.2 {name}.example\n"))
            .chain(["127.0.0.1 localhost\n".to_owned()])
            .collect();
        for (line, name) in names.iter().enumerate() {
            let machine = network.add(name)?;
            let (port, near, far) =
                (format!("line{line}"), format!("10.77.{line}.1"), format!("10.77.{line}.2/24"));
            let peer = ["type", "veth", "peer", "name", "eth0", "netns", machine.as_str()];
            done("ip", &[&["-n", &router, "link", "add", "name", &port], &peer[..]].concat())?;
            for (at, device, address) in
                [(&router, port.as_str(), format!("{near}/24")), (&machine, "eth0", far)]
            {
                done("ip", &["-n", at, "address", "add", &address, "dev", device])?;
                done("ip", &["-n", at, "link", "set", device, "up"])?;
            }
            done("ip", &["-n", &machine, "link", "set", "lo", "up"])?;
            done("ip", &["-n", &machine, "route", "add", "default", "via", &near])?;
            network.slow(&router, &port)?;
            let folder = Path::new(NAMES).join(&machine);
            fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            fs::write(folder.join("hosts"), &hosts).map_err(|error| error.to_string())?;
        }
        done("ip", &["netns", "exec", &router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        Ok(network)
    }

    fn add(&mut self, name: &str) -> Result<String, String> {
        let namespace = self.namespace(name);
        done("ip", &["netns", "add", &namespace])?;
        self.made.push(namespace.clone());
        Ok(namespace)
    }

    /// Delays what goes to a machine by `SECO_WALK_DELAY_MS`, where the kernel can.
    fn slow(&self, router: &str, port: &str) -> Result<(), String> {
        let Ok(delay) = std::env::var("SECO_WALK_DELAY_MS") else { return Ok(()) };
        let delay = format!("{delay}ms");
        done("tc", &["-n", router, "qdisc", "add", "dev", port, "root", "netem", "delay", &delay])
            .map_err(|why| format!("SECO_WALK_DELAY_MS needs the kernel's netem: {why}"))
    }

    pub fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.made {
            if let Err(why) = done("ip", &["netns", "delete", namespace]) {
                println!("{why}");
            }
            let _ = fs::remove_dir_all(Path::new(NAMES).join(namespace));
        }
        // Only where it is empty.
        let _ = fs::remove_dir(NAMES);
    }
}

/// Somebody's machine, and the folder in which he works.
pub struct Machine {
    namespace: String,
    pub home: PathBuf,
}

impl Machine {
    pub fn new(network: &Network, name: &str, homes: &Path) -> Machine {
        let home = homes.join(name);
        fs::create_dir_all(&home).unwrap();
        Machine { namespace: network.namespace(name), home }
    }

    /// The same machine, for somebody who works in a folder of it.
    pub fn folder(&self, name: &str) -> Machine {
        let home = self.home.join(name);
        fs::create_dir_all(&home).unwrap();
        Machine { namespace: self.namespace.clone(), home }
    }

    /// A command on that machine, at home.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let binaries = Path::new(env!("CARGO_BIN_EXE_seco")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command.current_dir(&self.home).env("PATH", path).stdin(Stdio::null());
        command
    }

    /// Runs a line in a folder of his; gives whether it succeeded, and what it said on both ways.
    pub fn tries(&self, folder: &str, line: &str) -> (bool, String) {
        let output =
            self.command("sh").args(["-ec", line]).current_dir(self.home.join(folder)).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// Runs a line that the guide has with other names, or leaves to the operator.
    pub fn run(&self, folder: &str, line: &str) -> String {
        let (fine, said) = self.tries(folder, line);
        assert!(fine, "{line}\n{said}");
        said
    }

    /// Runs a line exactly as the guide has it.
    pub fn as_written(&self, folder: &str, line: &str) -> String {
        let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("OPERATING.md");
        let plain = |text: &str| {
            text.replace("\\\n", " ").replace('`', " ").split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(
            plain(&fs::read_to_string(guide).unwrap()).contains(&plain(line)),
            "not in the guide: {line}"
        );
        self.run(folder, line)
    }

    /// Sends a file to somebody, who puts it into a folder of his.
    pub fn sends(&self, file: &str, to: &Machine, folder: &str) {
        let name = Path::new(file).file_name().unwrap();
        let folder = to.home.join(folder);
        fs::create_dir_all(&folder).unwrap();
        // Whoever reads the one that is replaced has all of it.
        let draft = folder.join(".incoming");
        fs::copy(self.home.join(file), &draft).unwrap();
        fs::rename(draft, folder.join(name)).unwrap();
    }

    /// Changes a text that is in a file once.
    pub fn edits(&self, file: &str, from: &str, to: &str) {
        let path = self.home.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from} in {file}:\n{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    pub fn appends(&self, file: &str, lines: &str) {
        let path = self.home.join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}\n{lines}")).unwrap();
    }
}

/// An operator with a server.
pub struct Operator {
    pub name: &'static str,
    pub index: usize,
    pub machine: Machine,
    server: Option<Child>,
    /// Where the present server's lines begin in the log.
    since: usize,
}

impl Operator {
    pub fn new(network: &Network, index: usize, name: &'static str, homes: &Path) -> Operator {
        Operator { name, index, machine: Machine::new(network, name, homes), server: None, since: 0 }
    }

    fn log(&self) -> PathBuf {
        self.machine.home.join("log")
    }

    /// What the present server has said.
    pub fn told(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes[self.since.min(bytes.len())..]).into_owned()
    }

    /// `seco serve --config NAME/server.toml`.
    pub fn start(&mut self) {
        assert!(self.server.is_none());
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        self.since = usize::try_from(log.metadata().unwrap().len()).unwrap();
        let mut command = self.machine.command("seco");
        command.args(["serve", "--config", &format!("{}/server.toml", self.name)]);
        self.server = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub fn says(&self, part: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.told().contains(part) {
            assert!(Instant::now() < deadline, "{} does not say {part}:\n{}", self.name, self.told());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn ready(&self) {
        self.says("ready: serves");
    }

    fn signal(&mut self, signal: &str) -> ExitStatus {
        let mut server = self.server.take().unwrap();
        common::signal(&server, signal);
        common::ended(&mut server, LIMIT)
    }

    /// SIGTERM, until the process is gone.
    pub fn stop(&mut self) {
        assert_eq!(self.signal("-TERM").code(), Some(0), "{}", self.told());
    }

    /// The machine is lost.
    pub fn kill(&mut self) {
        self.signal("-KILL");
    }

    /// Was told to end by another way; gives the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        common::ended(&mut self.server.take().unwrap(), LIMIT).code()
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start();
        self.ready();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            println!("{}:\n{}", self.name, fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}
