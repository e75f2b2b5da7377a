//! What the paper reports (Chen and Khisti, arXiv 2404.16232), for the same networks: four cloud machines with Intel
//! Xeon 2.3 GHz and 32 GB each, on a wide-area link.

use serde_json::{Value, json};

/// How much less the user of SECO has than DELPHI's, ResNet-32, at most.
pub const LESS_ONLINE_TIME: f64 = 9.9;
pub const LESS_WAITING: f64 = 2.6;
pub const LESS_PREPROCESSING_TIME: f64 = 11.0;
pub const LESS_ONLINE_BYTES: f64 = 18.5;
pub const LESS_PREPROCESSING_BYTES: f64 = 16.6;
/// DELPHI's online total, ResNet-32, read off figure 4, in seconds.
pub const DELPHI_ONLINE_S: f64 = 190.0;

/// Tables IV and V: what the servers prepare for one prediction of ResNet-32, by layers on the remotes, linear ones and
/// ReLUs: seconds and gigabytes.
pub const SETUP: [(usize, f64, f64); 15] = [
    (60, 290.2, 21.6),
    (56, 271.4, 19.9),
    (52, 251.0, 18.2),
    (48, 233.2, 16.5),
    (44, 216.0, 14.9),
    (40, 192.6, 13.2),
    (36, 175.4, 11.7),
    (32, 162.6, 10.6),
    (28, 148.2, 9.5),
    (24, 136.2, 8.4),
    (20, 117.2, 7.2),
    (16, 91.3, 5.8),
    (12, 68.5, 4.4),
    (8, 41.7, 3.0),
    (4, 16.0, 1.6),
];

/// A row of tables VI and VII: the whole online inference, all parties.
pub struct Online {
    pub system: &'static str,
    pub seconds: f64,
    pub megabytes: f64,
}

/// Table VI: MiniONN's network.
pub const MINIONN: [Online; 3] = [
    Online { system: "SECO, paper", seconds: 4.776, megabytes: 50.5 },
    Online { system: "Falcon, paper", seconds: 8.426, megabytes: 1.10 },
    Online { system: "SecureNN, paper", seconds: 183.5, megabytes: 177.0 },
];

/// Table VII: LeNet.
pub const LENET: [Online; 2] = [
    Online { system: "SECO, paper", seconds: 4.862, megabytes: 58.9 },
    Online { system: "Falcon, paper", seconds: 9.303, megabytes: 1.61 },
];

/// The table of a network.
pub fn online(model: &str) -> &'static [Online] {
    match model {
        "minionn" => &MINIONN,
        "lenet" => &LENET,
        _ => &[],
    }
}

/// Layers on the remotes as the paper counts them: a linear layer and the ReLU behind it are two.
pub fn remote_layers(linear: usize, gateway: usize) -> usize {
    2 * linear.saturating_sub(gateway)
}

/// All of it, for the report's object.
pub fn json() -> Value {
    let online = |rows: &[Online]| -> Value {
        let row =
            |o: &Online| json!({"system": o.system, "online_s": o.seconds, "online_megabytes": o.megabytes});
        rows.iter().map(row).collect()
    };
    let setup = |(layers, seconds, gigabytes): &(usize, f64, f64)| json!({"remote_layers": layers, "seconds": seconds, "gigabytes": gigabytes});
    json!({
        "source": "arXiv 2404.16232v1",
        "resnet32_less_than_delphi_up_to": {
            "user_online_time": LESS_ONLINE_TIME,
            "waiting": LESS_WAITING,
            "user_preprocessing_time": LESS_PREPROCESSING_TIME,
            "user_online_bytes": LESS_ONLINE_BYTES,
            "user_preprocessing_bytes": LESS_PREPROCESSING_BYTES,
        },
        "resnet32_delphi_online_s": DELPHI_ONLINE_S,
        "resnet32_setup": SETUP.iter().map(setup).collect::<Value>(),
        "minionn": online(&MINIONN),
        "lenet": online(&LENET),
    })
}
