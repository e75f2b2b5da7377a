//! The demo as its user runs it: the real binary, real server processes, real input.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(240);

fn seco(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_seco"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end, within limits.
fn finish(mut child: Child) -> Output {
    fn reader(source: Option<impl std::io::Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
        let mut source = source.unwrap();
        thread::spawn(move || {
            let mut text = Vec::new();
            source.read_to_end(&mut text).unwrap();
            text
        })
    }
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("still runs after {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// The one JSON object that a successful run prints.
fn json(arguments: &[&str]) -> Value {
    let output = finish(seco(arguments));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", output.stdout))
}

#[test]
fn mlp_over_two_three_and_four_servers_equals_the_plaintext() {
    for servers in ["2", "3", "4"] {
        let report = json(&["demo", "--json", "--model", "mlp", "--count", "3", "--servers", servers]);
        assert_eq!(report["model"], "mlp");
        assert_eq!(report["servers"].to_string(), servers);
        assert_eq!(report["count"], 3);
        assert_eq!(report["equal"], 3, "{report}");
        assert_eq!(report["relus"], 32);
        let number =
            |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}"));
        assert!(number("/correct") >= 2.0, "{report}");
        assert!(number("/online_ms/min") > 0.0);
        assert!(number("/online_ms/min") <= number("/online_ms/median"));
        assert!(number("/online_ms/median") <= number("/online_ms/max"));
        assert!(number("/preprocessing_s_per_bundle") > 0.0);
        assert!(number("/and_gates") > 32.0);
        assert!(
            number("/servers_bytes/preprocessing_per_bundle") > number("/servers_bytes/online_per_inference")
        );
        assert!(number("/servers_bytes/online_per_inference") > 0.0);
        assert_eq!(number("/device/plain_payload_up"), 64.0);
        assert!(number("/device/plain_bytes_up") > number("/device/plain_payload_up"));
        assert!(number("/device/plain_bytes_down") > number("/device/plain_payload_down"));
        // A private request is as large as a plain one, but for a few bytes of counters.
        assert!(number("/device/request_bytes_up") <= number("/device/plain_bytes_up") + 32.0, "{report}");
        // A key of X-Wing's size was sealed to every server.
        assert!(number("/device/session_bytes_up") > 1000.0 * number("/servers"), "{report}");
    }
}

/// All 200 digits of the test file over three servers: minutes of preprocessing, so only with
/// `SECO_SLOW=1`.
#[test]
fn two_hundred_digits_are_equal_and_right() {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/models/");
    if std::env::var_os("SECO_SLOW").is_none() {
        eprintln!("SKIPPED: 200 digits take minutes; set SECO_SLOW=1");
        return;
    }
    if !std::path::Path::new(models).exists() {
        eprintln!("SKIPPED: {models} with the large test files is not there");
        return;
    }
    let file = |name: &str| format!("{models}{name}");
    let (model, input) = (file("minionn-mnist.onnx"), file("mnist-test-200.npy"));
    let labels = file("mnist-labels-200.npy");
    let data = ["--model", &model, "--input", &input, "--labels", &labels, "--count", "200"];
    let report = json(&[&["demo", "--json"], &data[..]].concat());
    assert_eq!((&report["count"], &report["equal"]), (&200.into(), &200.into()), "{report}");
    assert!(report["correct"].as_u64().unwrap() >= 194, "{report}");
}

#[test]
fn delays_of_a_wide_area_link_show_in_the_online_time() {
    let report =
        json(&["demo", "--json", "--model", "mlp", "--count", "2", "--servers", "2", "--net", "wan:25"]);
    assert_eq!(report["equal"], 2);
    // To the gateway and back, and between the servers at least there and back.
    assert!(report["online_ms"]["min"].as_f64().unwrap() >= 100.0, "{report}");
}

#[test]
fn mistakes_are_told_in_one_line() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data/");
    let (digits, labels) = (format!("{data}mlp-digits-20.npy"), format!("{data}mlp-labels-20.npy"));
    for (arguments, expected) in [
        (vec!["demo", "--model", "lenet"], "give minionn, mlp, or a file that ends in .onnx"),
        (vec!["demo", "--count", "21"], "--count 21 is not from 1 to 20"),
        (vec!["demo", "--input", &digits], "mlp-digits-20.npy"),
        (vec!["demo", "--input", &labels], "the array has shape (20), the model takes (N, 1, 28, 28)"),
        (vec!["demo", "--model", "none.onnx", "--input", &digits], "none.onnx"),
        (vec!["infer", "--deployment", "none.toml", "--input", &digits], "none.toml"),
        (vec!["infer", "--deployment", "none.toml", "--input", &digits, "--index", "20"], "no --index 20"),
    ] {
        let output = finish(seco(&arguments));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
        assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
    }
}

/// One output is a value: it is printed, and nothing is said about classes and labels.
#[test]
fn the_value_of_one_output_is_not_judged() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let model = write("regression.onnx", crate::files::network([1, 5, 5], 1));
    let input = write("input.npy", crate::files::npy(&[2, 5, 5], &crate::files::values(50, 99)));
    let labels = write("labels.npy", crate::files::npy(&[2], &[0, 0]));
    let options = ["demo", "--servers", "2", "--model", &model, "--input", &input, "--labels", &labels];
    let output = finish(seco(&options));
    let (text, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{errors}");
    assert!(
        text.contains("value       ") && !text.contains("predicted") && !text.contains("label"),
        "{text}"
    );
    assert!(errors.contains("calibrated on 2 inputs only; values from 0 to "), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let report = json(&[&options[..], &["--json"]].concat());
    assert_eq!((&report["correct"], &report["equal"]), (&Value::Null, &2.into()), "{report}");
}

#[cfg(unix)]
#[test]
fn a_kept_cluster_serves_until_it_is_told_to_end() {
    let mut demo = seco(&["demo", "--json", "--keep", "--model", "mlp", "--count", "1", "--servers", "2"]);
    // Standard error tells where the deployment file is, once the cluster is there.
    let mut errors = BufReader::new(demo.stderr.take().unwrap());
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut all = String::new();
        while errors.read_line(&mut all).unwrap_or(0) > 0 {
            let path = all.lines().last().and_then(|l| l.split("--deployment ").nth(1)?.split(' ').next());
            path.map(|path| tell.send(path.to_owned()));
        }
        all
    });
    let deployment = match told.recv_timeout(LIMIT) {
        Ok(path) => path,
        Err(_) => {
            demo.kill().unwrap();
            panic!("no deployment file: {}", reader.join().unwrap());
        }
    };
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mlp-digits-20.npy");
    let ask = ["infer", "--deployment", &deployment, "--input", digits, "--json"];
    let answers = json(&[&ask[..], &["--count", "2"]].concat());
    assert_eq!(answers["predictions"].as_array().unwrap().len(), 2);
    assert_eq!(answers["predictions"][0]["logits"].as_array().unwrap().len(), 10);
    assert_eq!(answers["predictions"][0]["outside_calibration"], false);
    let one = json(&[&ask[..], &["--index", "1"]].concat());
    assert_eq!(one["predictions"][0]["logits"], answers["predictions"][1]["logits"]);

    let asked = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let mut report = String::new();
    demo.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    assert!(demo.wait().unwrap().success());
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["equal"], 1);
    // The temporary folder with all keys is gone.
    assert!(!std::path::Path::new(&deployment).exists());
    reader.join().unwrap();
}

#[cfg(unix)]
#[test]
fn an_interrupted_demo_leaves_no_servers_behind() {
    let demo = seco(&["demo", "--json", "--model", "minionn", "--servers", "3"]);
    let id = demo.id().to_string();
    let children = || {
        let listing = Command::new("ps").args(["-o", "pid=", "--ppid", &id]).output().unwrap().stdout;
        String::from_utf8(listing).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let start = Instant::now();
    while children().len() < 3 && start.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(20));
    }
    let servers = children();
    assert_eq!(servers.len(), 3);
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let output = finish(demo);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    for server in servers {
        let there = Command::new("kill").args(["-0", &server]).stderr(Stdio::null()).status().unwrap();
        assert!(!there.success(), "server process {server} still runs");
    }
}

/// The page of `--web`: its parts, an answer, and what it refuses. A browser tries it in `tests/web`.
#[cfg(unix)]
#[test]
fn the_page_answers_this_machine_alone() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_seco"))
        .args(["demo", "--web", "--model", "mlp", "--servers", "2"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("Open http://")).unwrap();
    let address = line["Open http://".len()..].split('/').next().unwrap().to_owned();
    let ask = |method: &str, path: &str, head: &str, body: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n"
        )
        .unwrap();
        // One that is refused may not be read to its end.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), head.to_lowercase(), body.to_owned())
    };
    let host = format!("host: {address}\r\n");
    for path in ["/", "/page.js", "/page.css", "/model", "/live"] {
        let (status, head, body) = ask("GET", path, &host, &[]);
        assert_eq!(status, "200", "{path}");
        assert!(head.contains("default-src 'none'"), "{head}");
        // Nothing from elsewhere.
        assert!(!body.contains("//cdn") && !body.contains("https:"), "{path}");
    }
    let model: Value = serde_json::from_str(&ask("GET", "/model", &host, &[]).2).unwrap();
    let sample: Vec<u8> = serde_json::from_value(model["samples"][3]["values"].clone()).unwrap();
    let asking = format!("{host}x-seco-demo: 1\r\n");
    let (status, _, body) = ask("POST", "/predict", &asking, &sample);
    assert_eq!(status, "200", "{body}");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (told["label"].as_u64(), told["equal"].as_bool()),
        (model["samples"][3]["label"].as_u64(), Some(true))
    );
    let sent: Vec<u8> = serde_json::from_value(told["sent"].clone()).unwrap();
    assert!(sent.len() == sample.len() && sent != sample);
    assert!(told["servers"][1]["sent_bytes"].as_u64().unwrap() > 0, "{told}");

    for (method, path, head, body, expected) in [
        ("POST", "/predict", host.as_str(), sample.as_slice(), "403"),
        ("POST", "/predict", "host: example.org\r\nx-seco-demo: 1\r\n", &sample, "403"),
        ("GET", "/", "host: example.org\r\n", &[], "403"),
        ("GET", "/", "", &[], "403"),
        ("POST", "/predict", &asking, &sample[1..], "400"),
        ("POST", "/predict", &asking, &[0; 5000], "400"),
        ("DELETE", "/predict", &asking, &[], "405"),
        ("GET", "/report", &host, &[], "404"),
        ("GET", "/../Cargo.toml", &host, &[], "404"),
    ] {
        let (status, _, told) = ask(method, path, head, body);
        assert_eq!(status, expected, "{method} {path} {head:?}: {told}");
    }
    // By a signal that it hears, so that it takes its folder and its servers along.
    assert!(Command::new("kill").args(["-TERM", &demo.id().to_string()]).status().unwrap().success());
    demo.wait().unwrap();
}
