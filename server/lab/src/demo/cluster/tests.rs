use super::*;

fn sleeper(cluster: &mut Cluster, index: usize, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", script]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    tokio::spawn(read_events(index, process.stdout.take().unwrap(), cluster.notify.clone()));
    let last = LastLines::listen(process.stderr.take().unwrap());
    cluster.running.push(Server { index, input: process.stdin.take(), process, last });
}

fn cluster() -> Cluster {
    Cluster::new(Path::new("unused"), 2, (Ipv4Addr::LOCALHOST, 0).into(), None)
}

#[tokio::test]
async fn a_server_that_ends_is_named_with_its_last_line() {
    let mut cluster = cluster();
    sleeper(&mut cluster, 1, "echo first >&2; echo 'seco: the disk is full' >&2; exit 3");
    let error = cluster.wait("ever", GRACE, |_| false).await.unwrap_err();
    assert_eq!(error.to_string(), "remote-1 ended (exit status: 3): the disk is full");
    // The same while the device waits for an answer.
    sleeper(&mut cluster, 0, "exit 1");
    let error = cluster.during(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.to_string(), "gateway ended (exit status: 1) without saying why: start the demo again");
    cluster.stop().await;
}

#[tokio::test]
async fn events_are_added_up_and_failures_end_a_wait() {
    let mut cluster = cluster();
    let script = r#"
        echo '{"event":"ready","server":0,"seconds":1.5,"mesh_bytes_sent":10}'
        echo '{"event":"bundle","server":0,"pool":1,"seconds":1.5,"mesh_bytes_sent":30}'
        echo '{"event":"inference","server":0,"pool":0,"seconds":0.5,"mesh_bytes_sent":35}'
        read order
        echo '{"event":"failed","server":0,"what":"bundle lost"}'
        read end"#;
    sleeper(&mut cluster, 0, script);
    cluster.wait("an inference", GRACE, |p| p[0].inferences == 1).await.unwrap();
    assert_eq!((cluster.progress()[0].bundles, cluster.progress()[0].pool, cluster.sent()), (1, 0, 35));
    let mut input = cluster.running[0].input.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"go\n").await.unwrap();
    let error = cluster.wait("more", GRACE, |_| false).await.unwrap_err();
    assert_eq!(error.to_string(), "gateway: bundle lost");
    drop(input);
    cluster.stop().await;
}

#[tokio::test]
async fn waits_end() {
    let mut cluster = cluster();
    sleeper(&mut cluster, 0, "read end");
    let error = cluster.wait("a miracle", Duration::from_millis(20), |_| false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "waited 0 s in vain for a miracle: is this machine too busy, or short of memory?"
    );
    let start = Instant::now();
    cluster.stop().await;
    assert!(start.elapsed() < GRACE, "closing its input ends it");
}

#[tokio::test]
async fn a_server_that_does_not_listen_is_killed() {
    let mut cluster = cluster();
    sleeper(&mut cluster, 0, "exec sleep 60");
    let start = Instant::now();
    cluster.stop().await;
    assert!(start.elapsed() < GRACE + GRACE);
}
