//! The operator's guide, walked through: three operators and a device, each on a machine of its own. Commands are the
//! guide's, most of them word by word. A device keeps asking from the first minute to the last.

mod device;
mod machines;

use std::fs;
use std::path::Path;
use std::time::Instant;

use self::device::{Device, Expected};
use self::machines::{Machine, Network, Operator};
use crate::common::{LIMIT, data, digits, ledgers};
use seco_model::FixedModel;
use seco_sdk::Deployment;
use seco_tools::split::{self, SplitOptions};

const NAMES: [&str; 3] = ["gateway", "remote-1", "remote-2"];

/// Everybody who has a part in it.
struct Walk {
    start: Instant,
    operators: [Operator; 3],
    /// Whose model it is; he works on the device's machine.
    owner: Machine,
    device: Option<Device>,
    expected: Expected,
    homes: tempfile::TempDir,
}

#[test]
fn three_operators_follow_the_guide_and_a_device_notices_nothing() {
    if std::env::var_os("SECO_SLOW").is_none() {
        println!("SKIPPED: it takes minutes; SECO_SLOW=1 runs it");
        return;
    }
    let names = [&NAMES[..], &["device"]].concat();
    // It goes last: servers are in it.
    let network = match Network::new(&names) {
        Ok(network) => network,
        Err(why) => {
            println!("SKIPPED: the machines cannot be had: {why}");
            return;
        }
    };
    let mut walk = Walk::begin(&network);
    walk.makes_keys_and_exchanges_them();
    walk.writes_settings();
    walk.splits_the_model();
    walk.starts();
    walk.asks();
    walk.monitors();
    walk.rotates_a_sealing_key();
    walk.rotates_a_certificate(2);
    walk.rotates_a_certificate(0);
    walk.replaces_a_server();
    walk.replaces_the_model();
    walk.ends();
}

impl Walk {
    fn begin(network: &Network) -> Walk {
        let homes = tempfile::tempdir().unwrap();
        let operators = [0, 1, 2].map(|index| Operator::new(network, index, NAMES[index], homes.path()));
        let owner = Machine::new(network, "device", homes.path());
        fs::copy(data("mlp-digits.onnx"), owner.home.join("model.onnx")).unwrap();
        fs::copy(data("mlp-digits-20.npy"), owner.home.join("inputs.npy")).unwrap();
        let (start, expected) = (Instant::now(), Expected::new());
        Walk { start, operators, owner, device: None, expected, homes }
    }

    fn says(&self, what: &str) {
        let answers = self.device.as_ref().map_or(0, |device| device.told().answers);
        println!("{:>6.1} s, {answers:>4} answers: {what}", self.start.elapsed().as_secs_f64());
    }

    fn device(&mut self) -> &mut Device {
        self.device.as_mut().unwrap()
    }

    fn operator(&self, index: usize) -> &Machine {
        &self.operators[index].machine
    }

    /// An operator sends a file from his server's folder, or another, to all others, into their servers' folders.
    fn sends(&self, from: usize, file: &str) {
        for other in self.operators.iter().filter(|other| other.index != from) {
            self.operator(from).sends(file, &other.machine, other.name);
        }
    }

    /// The owner of keys reads the digits of his own files; all others compare with what came.
    fn compares(&self, of: usize, folder: &str, line: &str) {
        let read = self.operator(of).run(folder, line);
        assert!(read.lines().filter(|line| line.contains("  ")).count() >= 1, "{read}");
        for other in self.operators.iter().filter(|other| other.index != of) {
            assert_eq!(other.machine.run(other.name, line), read, "{} hears other digits", other.name);
        }
    }

    fn restarts(&mut self, index: usize) {
        self.operators[index].restart();
        for operator in &self.operators {
            operator.ready();
        }
    }

    fn makes_keys_and_exchanges_them(&self) {
        self.says("1. keys, 2. exchange");
        self.operator(0).as_written("", "seco keygen --out gateway --name gateway");
        for (index, name) in NAMES.iter().enumerate().skip(1) {
            self.operator(index).run("", &format!("seco keygen --out {name} --name {name}"));
        }
        for (index, name) in NAMES.iter().enumerate() {
            for file in [format!("{name}/{name}.cert.pem"), format!("{name}/{name}.sealing.pub")] {
                self.sends(index, &file);
                self.operator(index).sends(&file, &self.owner, "");
            }
        }
        for (index, name) in NAMES.iter().enumerate() {
            let line = format!("seco fingerprint {name}.cert.pem {name}.sealing.pub");
            self.compares(index, name, &line);
            // The owner of the model compares too: his file says who the servers are.
            assert_eq!(self.owner.run("", &line), self.operator(index).run(name, &line));
        }
        self.owner.as_written("", "seco fingerprint gateway.cert.pem gateway.sealing.pub");
    }

    /// The sample, with `index`, `name`, and who the others are. Addresses are those of the sample.
    fn writes_settings(&self) {
        self.says("3. settings");
        for (index, name) in NAMES.iter().enumerate() {
            let text = settings(index);
            fs::write(self.operator(index).home.join(name).join("server.toml"), text).unwrap();
        }
        self.operator(0).edits("gateway/server.toml", "# deployments = [\"deploy", "deployments = [\"deploy");
    }

    fn splits_the_model(&mut self) {
        self.says("4. the model, 5. the deployment file");
        let line = "seco split --model model.onnx --calibrate inputs.npy --servers 3 --out parts";
        let said = self.owner.as_written("", line);
        let id = id(&said);
        for (index, name) in NAMES.iter().enumerate() {
            self.owner.sends(&format!("parts/server-{index}.seco"), self.operator(index), name);
        }
        backs_up(self.operator(1), "remote-1", &self.homes.path().join("backup"));
        self.remembers(&id, |_| ());
        // One is kept for deployment files.
        self.owner.run("", "mv parts/server-0.seco . && rm -r parts");
        self.owner.as_written("", "seco keygen --owner --out owner --name digits");
        // The guide's, and with it what makes it replaceable.
        let written = "seco deployment --address gateway.example:7443 --certificate gateway.cert.pem \
             --sealing-key gateway.sealing.pub --sealing-key remote-1.sealing.pub --sealing-key remote-2.sealing.pub \
             --model server-0.seco --out deployment.toml";
        self.owner.as_written("", written);
        fs::remove_file(self.owner.home.join("deployment.toml")).unwrap();
        self.publishes("server-0.seco");
    }

    /// What the numbers of a model are, without servers.
    fn remembers(&mut self, id: &str, change: impl FnOnce(&mut SplitOptions)) {
        let home = |name: &str| self.owner.home.join(name);
        let mut options = SplitOptions::new(home("model.onnx"), home("inputs.npy"), 3, home("unused"));
        change(&mut options);
        let model: FixedModel = split::import(&options).unwrap().chosen.model;
        let executor = seco_model::Executor::new(&model).unwrap();
        let answers = digits().iter().map(|digit| executor.run(digit).unwrap().logits).collect();
        self.expected.insert(id.to_owned(), answers);
        fs::write(home("expected.json"), serde_json::to_string(&self.expected).unwrap()).unwrap();
    }

    /// The owner writes the next deployment file and gives it to the gateway's operator; gives its number.
    fn publishes(&self, part: &str) -> u64 {
        // Files are numbered by the second.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let line = format!(
            "seco deployment --owner owner/digits.owner.key --address gateway.example:7443 --certificate \
             gateway.cert.pem --sealing-key gateway.sealing.pub --sealing-key remote-1.sealing.pub --sealing-key \
             remote-2.sealing.pub --model {part} --out published.toml --force"
        );
        self.owner.run("", &line);
        let file = self.owner.home.join("published.toml");
        let serial = Deployment::from_file(&file).unwrap().update.unwrap().serial;
        self.owner.run("", "mkdir -p out && cp published.toml out/deployment.toml");
        self.owner.sends("out/deployment.toml", self.operator(0), "gateway");
        serial
    }

    fn starts(&mut self) {
        self.says("6. start");
        self.operators[0].start();
        self.operators[0].says("listening");
        self.operators[2].start();
        self.operators[1].start();
        for operator in &self.operators {
            operator.ready();
            let told = operator.told();
            assert!(!told.contains("ERROR"), "{told}");
        }
    }

    fn asks(&mut self) {
        // The application ships the first file.
        self.owner.run("", "cp out/deployment.toml deployment.toml");
        let line = "seco infer --deployment deployment.toml --input inputs.npy --count 1";
        let said = self.owner.as_written("", line);
        self.says(&format!("7. ask: {}", said.trim()));
        // It works beside the owner, in a folder of its own.
        let home = "application";
        let application = self.owner.folder(home);
        self.owner.run("", &format!("cp deployment.toml {home}/ && ln -s ../expected.json {home}/"));
        self.device = Some(Device::start(&application));
        self.device().more();
    }

    fn monitors(&mut self) {
        self.says("monitor");
        for (operator, name) in self.operators.iter().zip(NAMES) {
            let at = |page: &str| operator.machine.run("", &format!("curl -s 127.0.0.1:7480/{page}"));
            assert_eq!((at("healthz").trim(), at("readyz").trim()), ("ok", "ready"), "{name}");
            assert!(at("metrics").contains("seco_ready 1\n"), "{name}");
            let told = operator.machine.as_written(name, "seco admin --config server.toml status");
            assert!(told.contains("\nready\n"), "{told}");
            let told = operator.machine.as_written(name, "seco doctor --config server.toml");
            assert!(!told.contains("FAILS"), "{told}");
        }
        let told = self.owner.as_written("", "seco doctor --deployment deployment.toml");
        assert!(!told.contains("FAILS"), "{told}");
        self.operator(0).as_written("gateway", "curl 127.0.0.1:7480/readyz");

        self.says("a remote is killed and comes back");
        self.operators[1].kill();
        let deadline = Instant::now() + LIMIT;
        let told = loop {
            assert!(Instant::now() < deadline, "the gateway does not notice");
            let (_, told) = self.operator(0).tries("gateway", "curl -s 127.0.0.1:7480/readyz");
            if told.trim() != "ready" {
                break told;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        };
        assert_eq!(told.trim(), "server 1 (remote-1) is not connected");
        self.operators[1].start();
        self.operators[1].says("bundles of before ready=");
        self.operators[1].ready();
        self.device().more();
    }

    fn rotates_a_sealing_key(&mut self) {
        self.says("rotate the sealing key of remote-2: two keys");
        let remote = self.operator(2);
        remote.as_written("", "seco keygen --out new --name remote-2");
        remote.as_written("", "mv remote-2/remote-2.opening.key remote-2/remote-2-2026.opening.key");
        remote.as_written("", "mv new/remote-2.opening.key new/remote-2.sealing.pub remote-2/");
        remote.run("", "rm -r new");
        let line = "retired_opening_keys = [\"remote-2-2026.opening.key\"]";
        remote.edits("remote-2/server.toml", &format!("# {line}"), line);
        self.restarts(2);
        self.device().more();
        let remote = self.operator(2);
        remote.sends("remote-2/remote-2.sealing.pub", &self.owner, "");
        let digits = "seco fingerprint remote-2.sealing.pub";
        assert_eq!(self.owner.run("", digits), remote.run("remote-2", digits));
        let serial = self.publishes("server-0.seco");
        self.device().has(serial);
        self.says("rotate the sealing key of remote-2: the old one goes");
        self.operator(2).edits("remote-2/server.toml", line, "");
        self.restarts(2);
        self.operator(2).run("", "rm remote-2/remote-2-2026.opening.key");
        self.device().more();
    }

    fn rotates_a_certificate(&mut self, of: usize) {
        let name = NAMES[of];
        self.says(&format!("rotate the certificate of {name}: the others accept both"));
        let rotating = |walk: &Walk, line: &str| {
            match of {
                2 => walk.operator(of).as_written("", line),
                _ => walk.operator(of).run("", &line.replace("remote-2", name)),
            };
        };
        rotating(self, "seco keygen --out new --name remote-2");
        for other in self.operators.iter().filter(|other| other.index != of) {
            self.operator(of).sends(
                &format!("new/{name}.cert.pem"),
                &other.machine,
                &format!("{}/new", other.name),
            );
        }
        // Step 1: they compare what came.
        let digits = format!("seco fingerprint {name}.cert.pem");
        let read = self.operator(of).run("new", &digits);
        for other in (0..3).filter(|&other| other != of) {
            let (machine, folder) = (self.operator(other), NAMES[other]);
            assert_eq!(machine.run(&format!("{folder}/new"), &digits), read);
            machine.run(folder, &format!("cp {name}.cert.pem {name}.first.cert.pem"));
            let both = format!("cat new/{name}.cert.pem >> {name}.cert.pem");
            match of {
                2 => machine.as_written(folder, &both),
                _ => machine.run(folder, &both),
            };
            self.restarts(other);
            self.device().more();
        }
        if of == 0 {
            // Devices know the next one before it is shown.
            self.operator(0).sends("new/gateway.cert.pem", &self.owner, "new");
            self.owner.run("", "cat new/gateway.cert.pem >> gateway.cert.pem");
            let serial = self.publishes("server-0.seco");
            self.device().has(serial);
        }
        self.says(&format!("rotate the certificate of {name}: it shows the new one"));
        rotating(self, "mv remote-2/remote-2.cert.pem remote-2/remote-2.first.cert.pem");
        rotating(self, "mv new/remote-2.cert.pem new/remote-2.key.pem remote-2/");
        self.operator(of).run("", "rm -r new");
        let known = format!("known_as = \"{name}.first.cert.pem\"");
        self.operator(of).edits(&format!("{name}/server.toml"), &format!("# {known}"), &known);
        self.restarts(of);
        self.device().more();
        self.says(&format!("rotate the certificate of {name}: the others forget the old one"));
        for other in (0..3).filter(|&other| other != of) {
            let (machine, folder) = (self.operator(other), NAMES[other]);
            machine.edits(&format!("{folder}/server.toml"), &format!("# {known}"), &known);
            machine.run(folder, &format!("mv new/{name}.cert.pem {name}.cert.pem && rmdir new"));
            self.restarts(other);
            self.device().more();
        }
        if of == 0 {
            self.owner.run("", "mv new/gateway.cert.pem gateway.cert.pem");
            let serial = self.publishes("server-0.seco");
            self.device().has(serial);
        }
        let text = self.operators.iter().map(Operator::told).collect::<String>();
        assert!(!text.contains("another cluster") && !text.contains("set back"), "{text}");
    }

    fn replaces_a_server(&mut self) {
        self.says("replace remote-1: its disk is lost");
        self.operators[1].kill();
        let remote = self.operator(1);
        remote.run("", "rm -r remote-1");
        remote.run("", "seco keygen --out remote-1 --name remote-1");
        fs::write(remote.home.join("remote-1/server.toml"), settings(1)).unwrap();
        // Its operator has a backup of the part, which is no part of `state`.
        let backup = self.homes.path().join("backup");
        assert!(backup.join("server-1.seco").exists());
        fs::copy(backup.join("server-1.seco"), self.operator(1).home.join("remote-1/server-1.seco")).unwrap();
        for file in ["remote-1/remote-1.cert.pem", "remote-1/remote-1.sealing.pub"] {
            self.sends(1, file);
            self.operator(1).sends(file, &self.owner, "");
        }
        self.compares(1, "remote-1", "seco fingerprint remote-1.cert.pem remote-1.sealing.pub");
        let serial = self.publishes("server-0.seco");
        for index in [0, 2] {
            self.operator(index).sends(
                &format!("{0}/{0}.cert.pem", NAMES[index]),
                self.operator(1),
                "remote-1",
            );
            self.operators[index].stop();
            self.operators[index].start();
        }
        self.says("replace remote-1: what the others were known as is missing");
        self.operators[1].start();
        self.operators[1].says("another cluster");
        self.operators[1].kill();
        for (index, name) in [(0, "gateway"), (2, "remote-2")] {
            self.operator(index).sends(
                &format!("{name}/{name}.first.cert.pem"),
                self.operator(1),
                "remote-1",
            );
            let known = format!("known_as = \"{name}.first.cert.pem\"");
            self.operator(1).edits("remote-1/server.toml", &format!("# {known}"), &known);
        }
        self.says("replace remote-1: it starts");
        self.operators[1].start();
        self.operators.iter().for_each(Operator::ready);
        self.device().has(serial);
        let told = self.operators[1].told();
        assert!(!told.contains("another cluster"), "{told}");
    }

    fn replaces_the_model(&mut self) {
        self.says("replace the model: both are served");
        let line = "seco split --model model.onnx --calibrate inputs.npy --servers 3 --out two --scale 16";
        let said = self.owner.run("", line);
        let next = id(&said);
        self.remembers(&next, |options| options.scale = Some(16.0));
        for (index, name) in NAMES.iter().enumerate() {
            self.owner.sends(
                &format!("two/server-{index}.seco"),
                self.operator(index),
                &format!("{name}/two"),
            );
            let machine = self.operator(index);
            machine.run("", &format!("cp -r {name}/two ."));
            let line = format!(
                "seco admin --config {name}/server.toml models add two/server-{index}.seco --name minionn --pool 8"
            );
            let said = match index {
                0 => machine.as_written("", &line),
                _ => machine.run("", &line),
            };
            let (_, lines) = said.split_once("if these lines are in the settings:").unwrap();
            machine.appends(&format!("{name}/server.toml"), lines);
        }
        let deadline = Instant::now() + LIMIT;
        let told = loop {
            assert!(Instant::now() < deadline, "two models are not served");
            let told = self.operator(0).as_written("", "seco admin --config gateway/server.toml models");
            if told.lines().filter(|line| line.ends_with("; served")).count() == 2 {
                break told;
            }
            self.device().more();
        };
        let before = told.split_whitespace().nth(1).unwrap().trim_end_matches(':').to_owned();
        let serial = self.publishes("two/server-0.seco");
        self.device().has(serial);
        self.says("replace the model: the old one goes");
        for (index, name) in NAMES.iter().enumerate() {
            let machine = self.operator(index);
            machine.run("", &format!("seco admin --config {name}/server.toml models remove {before}"));
            // The new part is where the old one was.
            machine.run("", &format!("mv {name}/two/server-{index}.seco {name}/ && rm -r {name}/two two"));
            let settings = machine.home.join(name).join("server.toml");
            let text = fs::read_to_string(&settings).unwrap();
            let (first, _) = text.split_once("\n[[models]]\n").unwrap();
            fs::write(&settings, first).unwrap();
        }
        self.device().more();
        for index in [2, 1, 0] {
            self.restarts(index);
            self.device().more();
        }
        let told = self.operator(0).run("", "seco admin --config gateway/server.toml models");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(&next[..8]), "{told}");
    }

    fn ends(&mut self) {
        let told = self.device.take().unwrap().stop();
        self.says(&format!("the device has seen {told:?}"));
        for (index, name) in NAMES.iter().enumerate() {
            let line = format!("seco admin --config {name}/server.toml drain");
            self.operator(index).run("", &line);
            assert_eq!(self.operators[index].ended(), Some(0));
        }
        let states = self.operators.each_ref().map(|one| one.machine.home.join(one.name).join("state"));
        ledgers::nothing_is_used_twice(&states);
        assert!(told.errors.is_empty(), "{told:?}");
        assert!(told.answers > 100, "{told:?}");
    }
}

/// Settings of a server: the guide's sample, of which the remotes' is for the first.
fn settings(index: usize) -> String {
    let file = if index == 0 { "sample-gateway.toml" } else { "sample-remote.toml" };
    let mut text = fs::read_to_string(data(file)).unwrap();
    if index == 2 {
        for (from, to) in [("remote-1", "remote-X"), ("remote-2", "remote-1"), ("remote-X", "remote-2")] {
            text = text.replace(from, to);
        }
        for (from, to) in [("index = 1", "index = X"), ("index = 2", "index = 1"), ("index = X", "index = 2")]
        {
            text = text.replace(from, to);
        }
        text = text.replace("server-1.seco", "server-2.seco");
    }
    let admin = "# [admin]\n# listen = \"127.0.0.1:7480\"";
    assert!(text.contains(admin));
    text.replace(admin, "[admin]\nlisten = \"127.0.0.1:7480\"")
}

/// The model's number, as `seco split` says it.
fn id(said: &str) -> String {
    said.lines().find_map(|line| line.strip_prefix("model ")).unwrap().to_owned()
}

/// A copy of what may be backed up.
fn backs_up(machine: &Machine, name: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::copy(machine.home.join(name).join("server-1.seco"), to.join("server-1.seco")).unwrap();
}
