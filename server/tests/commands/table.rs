//! The cases of all languages against real servers, as an application's code meets them: by `seco_sdk::Infer`.
//! `sdk/tests/client/table.rs` has them against the fake client.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use seco_sdk::{Client, Deployment};

const LIMIT: Duration = Duration::from_secs(120);

/// `seco demo --keep`; its servers end with it.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_pass_the_cases_that_hold_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deployment.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_seco"));
    command.args(["demo", "--json", "--keep", "--model", "minionn", "--servers", "2", "--count", "1"]);
    command.args(["--listen", "127.0.0.1", "--deployment"]).arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut demo = Demo(command.spawn().unwrap());
    let lines = BufReader::new(demo.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (tell, told) = mpsc::channel();
    let reading = thread::spawn(move || {
        // With `--json` standard error tells how to ask, once the servers are there.
        for _ in lines.filter(|line| line.contains("--deployment")) {
            let _ = tell.send(());
        }
    });
    told.recv_timeout(LIMIT).unwrap();

    let (all, digits) = (crate::cases::all(), crate::cases::digits());
    let real: Vec<_> = all.iter().filter(|case| case.real).collect();
    assert!(real.len() > 5);
    for case in real {
        let deployment = Deployment::from_file(&file).unwrap();
        let client = Client::builder(deployment).keep_sent(case.keep_sent).connect().await.unwrap();
        crate::cases::run(&client, case, &digits).await;
        client.close().await;
    }
    drop(demo);
    reading.join().unwrap();
}
