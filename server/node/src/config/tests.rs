use super::*;

const GATEWAY: &str = include_str!("../../../data/sample-gateway.toml");
const REMOTE: &str = include_str!("../../../data/sample-remote.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/seco"))
}

#[test]
fn the_samples_are_right() {
    let gateway = parse(GATEWAY).unwrap();
    assert_eq!((gateway.index, gateway.servers(), gateway.is_gateway()), (0, 3, true));
    assert_eq!(gateway.identity.key, Path::new("/etc/seco/gateway.key.pem"));
    assert_eq!(gateway.peer(2).unwrap().certificate, Path::new("/etc/seco/remote-2.cert.pem"));
    // What the sample says are the defaults are the defaults.
    assert_eq!((gateway.pool, gateway.limits), (Pool::default(), Limits::default()));
    assert_eq!((gateway.access, gateway.admin, gateway.log), (None, None, None));
    let remote = parse(REMOTE).unwrap();
    assert_eq!((remote.index, remote.servers(), remote.is_gateway()), (1, 3, false));
    assert_eq!(remote.limits, Limits::default());
}

#[test]
fn what_is_saved_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.toml");
    for text in [GATEWAY, REMOTE] {
        let config = parse(text).unwrap();
        config.save(&path).unwrap();
        assert_eq!(Config::load(&path).unwrap(), config);
    }
}

#[test]
fn mistakes_are_told_in_one_line() {
    let change = |from: &str, to: &str| {
        assert!(GATEWAY.contains(from), "{from}");
        parse(&GATEWAY.replace(from, to)).unwrap_err()
    };
    for (message, part) in [
        (change("low = 3", "lwo = 3"), "unknown field `lwo`"),
        (change("model =", "#"), "missing field `model`"),
        (change("index = 0", "index = 1"), "lacks server 0"),
        (change("index = 0", "index = 7"), "servers are 0 to 2"),
        (change("index = 2", "index = 1"), "server 1 twice"),
        (change("address = \"remote-2.example:7400\"", ""), "2: address is missing"),
        (
            change("remote-2.example:7400", "remote-2.example"),
            "address = \"remote-2.example\" is not HOST:PORT",
        ),
        (change("remote-2.example:7400", "remote 2:7400"), "address = \"remote 2:7400\" is not HOST:PORT"),
        (change("remote-2.example:7400", "192.0.2.300:7400"), "is not HOST:PORT"),
        (change("\ndevice =", "\n# "), "device is missing"),
        (change("ot_parameter = 2", "ot_parameter = 3"), "1: ot_parameter = 3 is not 1, 2, 4 or 8"),
        (change("low = 3", "low = 4"), "low = 4 must be less than size = 4"),
        (change("leases = 0", "leases = 5"), "leases = 5 must not be more than size = 4"),
        (change("infer_s = 60", "infer_s = 0"), "infer_s = 0"),
        (change("\n[limits]", "\n[[models]]\nname = \"b\"\n[limits]"), "missing field `part`"),
        (
            change("\n[limits]", "\n[[models]]\npart = \"b\"\nname = \"b c\"\n[limits]"),
            "name = \"b c\" is not",
        ),
        (
            change("\n[limits]", "\n[[models]]\npart = \"b\"\n[models.pool]\nlow = 4\n[limits]"),
            "[models.pool] low = 4 must be less than size = 4",
        ),
        (change("sessions = 10000", "sessions = 0"), "sessions = 0"),
        (change("parallel = 4", "parallel = 65"), "parallel = 65"),
        (change("idle_s = 15", "idle_s = 0"), "idle_s = 0"),
        (change("connections = 1024", "connections = 0"), "connections = 0"),
        (change("\"0.0.0.0:7400\"", "\"nowhere\""), "invalid socket address"),
        (
            parse(&REMOTE.replace("\n[listen]\n", "\n[listen]\ndevice = \"0.0.0.0:1\"\n")).unwrap_err(),
            "gateway, only",
        ),
    ] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
        assert_eq!(message.lines().count(), 1, "{message:?}");
    }
}

#[test]
fn the_admin_port_is_for_this_machine_unless_said() {
    let with = |text: &str| parse(&format!("{GATEWAY}\n[admin]\n{text}\n"));
    let local = with("listen = \"127.0.0.1:7480\"").unwrap().admin.unwrap();
    assert_eq!((local.listen.port(), local.public), (7480, false));
    for address in ["0.0.0.0:7480", "192.0.2.1:7480", "[::]:7480", "[::ffff:192.0.2.1]:7480"] {
        let told = with(&format!("listen = \"{address}\"")).unwrap_err();
        assert!(told.contains("public = true"), "{told}");
        assert!(with(&format!("listen = \"{address}\"\npublic = true")).is_ok(), "{address}");
    }
    assert!(with("listen = \"[::1]:7480\"").is_ok());
    assert!(with("listen = \"127.0.0.1:7480\"\nopen = true").unwrap_err().contains("unknown field"));
}

#[test]
fn spans_go_to_a_collector_on_this_machine_alone() {
    let with = |text: &str| parse(&format!("{GATEWAY}\n[log]\notlp = \"{text}\"\n"));
    for (text, kept) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318"),
        ("http://[::1]:4318", "http://[::1]:4318"),
    ] {
        let config = with(text).unwrap();
        assert_eq!(config.log.unwrap().otlp.to_string(), kept);
        let dir = tempfile::tempdir().unwrap();
        config.save(&dir.path().join("server.toml")).unwrap();
        assert_eq!(Config::load(&dir.path().join("server.toml")).unwrap().log, config.log);
    }
    for text in [
        "",
        "127.0.0.1:4318",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://localhost:4318",
        "http://192.0.2.1:4318",
        "http://0.0.0.0:4318",
        "http://[::ffff:192.0.2.1]:4318",
        "https://127.0.0.1:4318",
        "http://127.0.0.1:4318/v1/traces",
        "http://127.0.0.1:4318@192.0.2.1:80",
    ] {
        let told = with(text).unwrap_err();
        assert!(told.contains("is not http://127.0.0.1:PORT") && told.lines().count() == 1, "{told}");
    }
    assert!(parse(&format!("{GATEWAY}\n[log]\n")).unwrap_err().contains("missing field `otlp`"));
}

#[test]
fn tokens_are_the_gateways() {
    let with = |text: &str, access: &str| parse(&format!("{text}\n[access]\n{access}\n"));
    let access = with(GATEWAY, "tokens = \"tokens.toml\"").unwrap().access.unwrap();
    assert_eq!((access.tokens.as_path(), access.required), (Path::new("/etc/seco/tokens.toml"), true));
    assert!(!with(GATEWAY, "tokens = \"t\"\nrequired = false").unwrap().access.unwrap().required);
    assert!(with(REMOTE, "tokens = \"tokens.toml\"").unwrap_err().contains("gateway, only"));
    assert!(with(GATEWAY, "").unwrap_err().contains("missing field `tokens`"));
}

#[test]
fn a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent.toml");
    assert!(Config::load(&path).unwrap_err().to_string().contains("absent.toml"));
}
