//! One private prediction: `classify DEPLOYMENT FILE`. The input is what stands at the end of the file, one byte for each
//! value: the pixels of a PGM image, or the last input of an array of bytes.

use seco_sdk::{Client, Deployment, Error, FileStore, Progress};
use std::process::ExitCode;
use std::sync::Arc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [deployment, file] = arguments.as_slice() else {
        return Err("usage: classify DEPLOYMENT FILE".into());
    };
    let deployment = Deployment::from_file(deployment)?;
    let file = std::fs::read(file)?;
    let (_, input) = file
        .len()
        .checked_sub(deployment.model_info()?.input_len)
        .and_then(|start| file.split_at_checked(start))
        .ok_or("the file is shorter than an input of the model")?;

    // The next start takes the session up. The file is a secret.
    let store = Arc::new(FileStore::new("session"));
    match classify(Client::builder(deployment).session_store(store), input).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_temporary() => {
            eprintln!("{error} (the same may work later)");
            Ok(ExitCode::from(3))
        }
        Err(error) => Err(error.into()),
    }
}

async fn classify(builder: seco_sdk::ClientBuilder, input: &[u8]) -> Result<(), Error> {
    let client = builder.connect().await?;
    let prediction = client
        .infer_with(input, |progress| {
            if let Progress::Queued { position, wait } = progress {
                eprintln!("place {position}, about {} ms", wait.as_millis());
            }
        })
        .await?;
    for answer in prediction.answers() {
        println!("{}: label {}, numbers {:?}", answer.output.name, answer.label(), answer.values());
    }
    if prediction.outside_calibration {
        println!("the input is beyond what calibrated the model: the answer may be wrong");
    }
    let cost = client.last_cost();
    println!("{} bytes up, {} down, over {:?}", cost.bytes_up, cost.bytes_down, client.transport());
    client.close().await;
    Ok(())
}
