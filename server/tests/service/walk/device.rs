//! A device on a machine of its own: an application that keeps asking, and that looks for the next deployment file as
//! `sdk/docs/updates.md` says.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use seco_sdk::{Client, ClientBuilder, Deployment, Error};
use serde::{Deserialize, Serialize};

use super::machines::Machine;
use crate::common::{LIMIT, digits};

/// Where the application's folder is; without it there is none.
const FOLDER: &str = "SECO_WALK_DEVICE";
/// How often it asks for the next deployment file, where others ask once a day.
const LOOKS: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// What the device tells of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Right answers; a wrong one ends the device.
    pub answers: usize,
    /// Requests that were refused, and answered with the next deployment file.
    pub refused: usize,
    /// Number of the present deployment file.
    pub serial: u64,
    /// Longest time that an answer took, in seconds.
    pub longest: f64,
    /// What the user was told instead of an answer.
    pub errors: Vec<String>,
}

/// Numbers that each model gives for the bundled digits, by its id.
pub type Expected = HashMap<String, Vec<Vec<i32>>>;

/// The device, seen from outside.
pub struct Device {
    process: Child,
    folder: PathBuf,
}

impl Device {
    /// Starts the application with the file `deployment.toml` at home.
    pub fn start(machine: &Machine) -> Device {
        let log = fs::File::create(machine.home.join("log")).unwrap();
        let process = machine
            .command(std::env::current_exe().unwrap())
            .args(["--exact", "walk::device::keeps_asking", "--ignored", "--nocapture"])
            .env(FOLDER, &machine.home)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Device { process, folder: machine.home.clone() }
    }

    pub fn told(&self) -> Told {
        let text = fs::read_to_string(self.folder.join("told.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn waits(&mut self, what: &str, enough: impl Fn(&Told) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !enough(&self.told()) {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(self.process.try_wait().unwrap().is_none(), "the device has ended:\n{}", log());
            assert!(Instant::now() < deadline, "{what}: {:?}\n{}", self.told(), log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for some more answers.
    pub fn more(&mut self) {
        let answers = self.told().answers + 3;
        self.waits("no more answers", |told| told.answers >= answers);
    }

    /// Waits until it is served with this deployment file.
    pub fn has(&mut self, serial: u64) {
        self.waits("another deployment file", |told| told.serial == serial);
        self.more();
    }

    /// Ends it; gives what it has seen.
    pub fn stop(mut self) -> Told {
        fs::write(self.folder.join("stop"), "").unwrap();
        let status = self.process.wait().unwrap();
        let log = fs::read_to_string(self.folder.join("log")).unwrap();
        assert!(status.success(), "{log}");
        self.told()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn builder(deployment: &Deployment) -> ClientBuilder {
    Client::builder(deployment.clone()).request_timeout(Duration::from_secs(60))
}

struct Application {
    folder: PathBuf,
    deployment: Deployment,
    client: Client,
    /// Of the present model.
    expected: Vec<Vec<i32>>,
}

impl Application {
    async fn start(folder: &Path) -> Application {
        let deployment = Deployment::from_file(folder.join("deployment.toml")).unwrap();
        let client = builder(&deployment).connect().await.unwrap();
        let expected = expected(folder, &deployment);
        Application { folder: folder.to_owned(), deployment, client, expected }
    }

    /// Looks for the next file, and takes it if it works; says whether it did.
    async fn looks(&mut self) -> bool {
        // A gateway that is not there is asked again later.
        let Ok(Some(text)) = builder(&self.deployment).fetch_update().await else { return false };
        let next = self.deployment.successor(&text).unwrap();
        let beside = self.folder.join("next.toml");
        fs::write(&beside, &text).unwrap();
        match builder(&next).connect().await {
            Ok(client) => {
                fs::rename(beside, self.folder.join("deployment.toml")).unwrap();
                self.expected = expected(&self.folder, &next);
                self.client.close().await;
                (self.client, self.deployment) = (client, next);
                true
            }
            Err(error) => {
                println!("the next file does not work yet: {error}");
                false
            }
        }
    }

    fn serial(&self) -> u64 {
        self.deployment.update.map_or(0, |update| update.serial)
    }
}

fn expected(folder: &Path, deployment: &Deployment) -> Vec<Vec<i32>> {
    let all = fs::read_to_string(folder.join("expected.json")).unwrap();
    let mut all: Expected = serde_json::from_str(&all).unwrap();
    all.remove(&seco_node::keys::to_hex(&deployment.model.id.0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the device of the walk, which starts it"]
async fn keeps_asking() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let mut application = Application::start(&folder).await;
    let (mut told, mut looked, digits) = (Told::default(), Instant::now(), digits());
    for number in (0..digits.len()).cycle() {
        if looked.elapsed() > LOOKS {
            application.looks().await;
            looked = Instant::now();
        }
        let start = Instant::now();
        let mut result = application.client.infer(&digits[number]).await;
        if let Err(Error::Refused(why)) = &result {
            println!("refused: {why}");
            if application.looks().await {
                told.refused += 1;
                result = application.client.infer(&digits[number]).await;
            }
        }
        match result {
            Ok(answer) => {
                assert_eq!(answer.logits, application.expected[number], "digit {number}");
                told.answers += 1;
            }
            Err(error) => told.errors.push(error.to_string()),
        }
        told.longest = told.longest.max(start.elapsed().as_secs_f64());
        told.serial = application.serial();
        fs::write(folder.join("told.new"), serde_json::to_string(&told).unwrap()).unwrap();
        fs::rename(folder.join("told.new"), folder.join("told.json")).unwrap();
        if folder.join("stop").exists() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    application.client.close().await;
}
