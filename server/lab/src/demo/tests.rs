use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn parse(arguments: &[&str]) -> Result<Options, String> {
    let line = Line::try_parse_from([&["demo"], arguments].concat());
    line.map(|l| l.options).map_err(|e| e.to_string())
}

fn load(arguments: &[&str]) -> Result<Samples, String> {
    let folder = tempfile::tempdir().unwrap();
    let options = parse(arguments)?;
    Samples::load(&options.network, options.labels.as_deref(), options.count, folder.path())
        .map_err(|e| e.to_string())
}

/// An uint8 array in NumPy's format.
fn npy(path: &Path, shape: &[usize]) {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let mut header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({},), }}", axes.join(", ")).into_bytes();
    header.resize((10 + header.len() + 1).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    let mut file = [b"\x93NUMPY\x01\x00".as_slice(), &length, &header].concat();
    // Pictures with all values, as a calibration wants them.
    file.extend((0..shape.iter().product::<usize>()).map(|i| (i * i / 7 + 31 * i) as u8));
    std::fs::write(path, file).unwrap();
}

#[test]
fn options_have_the_promised_defaults() {
    let options = parse(&[]).unwrap();
    assert_eq!((options.network.model.as_path(), options.servers), (Path::new("minionn"), 3));
    assert!(options.net.is_none() && !options.keep && !options.json);
    assert_eq!(parse(&["--net", "wan"]).unwrap().net.unwrap().delay, Duration::from_millis(20));
    assert_eq!(parse(&["--net", "wan:75"]).unwrap().net.unwrap().delay, Duration::from_millis(75));
}

#[test]
fn inputs_are_normalised_as_asked() {
    let samples = load(&["--model", "mlp", "--scale", "2", "--mean", "0.5", "--std", "0.25"]).unwrap();
    assert_eq!((samples.scale, samples.mean, samples.std), (2.0, vec![0.5], vec![0.25]));
    let samples = load(&["--model", "mlp"]).unwrap();
    assert_eq!((samples.scale, samples.mean, samples.std), (16.0, vec![], vec![]));
    assert!(load(&["--mean", "1"]).is_err_and(|e| e.contains("--std")));
}

#[test]
fn impossible_options_are_refused() {
    for wrong in [["--net", "lan"], ["--net", "wan:"], ["--net", "wan:0"], ["--net", "wanted"]] {
        assert!(parse(&wrong).unwrap_err().contains("give wan, or wan:MS"), "{wrong:?}");
    }
    for wrong in ["1", "5"] {
        assert!(parse(&["--servers", wrong]).unwrap_err().contains("2..=4"));
    }
}

#[test]
fn the_gateway_listens_where_devices_reach_it() {
    let listen = |text| parse(&["--listen", text]).map(|options| options.listen.unwrap().to_string());
    assert_eq!(listen("192.168.1.20").unwrap(), "192.168.1.20:0");
    assert_eq!(listen("192.168.1.20:7443").unwrap(), "192.168.1.20:7443");
    assert_eq!(listen("[::1]:7443").unwrap(), "[::1]:7443");
    for wrong in ["0.0.0.0:7443", "::", "localhost", "192.168.1.20:x", ""] {
        assert!(listen(wrong).unwrap_err().contains("give an address of this machine"), "{wrong}");
    }
    assert!(parse(&["--listen", "127.0.0.1", "--net", "wan"]).is_err());
}

#[test]
fn bundled_networks_have_twenty_labelled_digits() {
    for (name, size, largest, paper) in [("minionn", 784, 255, true), ("mlp", 64, 16, false)] {
        let samples = load(&["--model", name]).unwrap();
        assert_eq!((samples.count, samples.paper), (20, paper));
        for i in 0..20 {
            assert_eq!(samples.get(i).len(), size);
            assert!(samples.get(i).iter().all(|&v| v <= largest));
            assert!(samples.label(i).unwrap() < 10);
        }
        assert!(terminal::picture(&samples.shape, samples.get(0), Ink::Plain).is_some());
    }
}

#[test]
fn wrong_samples_are_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (input, labels) = (folder.path().join("input.npy"), folder.path().join("labels.npy"));
    let empty = folder.path().join("empty.npy");
    npy(&input, &[4, 8, 8]);
    npy(&labels, &[3]);
    let (input, labels) = (input.to_str().unwrap(), labels.to_str().unwrap());
    let said = |arguments: &[&str], expected: &str| {
        let Err(error) = load(arguments) else { panic!("{arguments:?} must be refused") };
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    said(&["--model", "lenet"], "give minionn, mlp, or a file that ends in .onnx");
    said(&["--model", "net.onnx"], "needs --input");
    said(&["--count", "21"], "--count 21 is not from 1 to 20");
    said(&["--count", "0"], "--count 0 is not from 1 to 20");
    said(&["--labels", labels], "needs the --input");
    said(&["--input", input, "--count", "5"], "has 4 samples; --count 5");
    said(&["--input", input, "--labels", labels], "4 inputs need 4 labels");
    npy(&empty, &[0, 8, 8]);
    said(&["--input", empty.to_str().unwrap()], "the first axis must count the samples");
    said(&["--input", "missing.npy"], "missing.npy");
    let samples = load(&["--model", "net.onnx", "--input", input]).unwrap();
    assert_eq!((samples.count, samples.scale, samples.name.as_str()), (4, 255.0, "net"));
    assert_eq!((samples.shape.as_slice(), samples.label(0)), ([8, 8].as_slice(), None));
}

#[test]
fn an_input_of_another_shape_than_the_networks_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.npy");
    for shape in [&[2, 8, 8][..], &[28, 28, 1, 5], &[1, 5, 28, 28], &[28, 28], &[784], &[3, 28 * 27]] {
        npy(&input, shape);
        let options = parse(&["--input", input.to_str().unwrap(), "--count", "1"]).unwrap();
        let Err(error) = prepared(&options, folder.path()) else { panic!("{shape:?} must be refused") };
        let error = error.to_string();
        assert!(error.contains("input.npy") && error.lines().count() == 1, "{error}");
        assert!(error.contains("the model takes (N, 1, 28, 28)"), "{error}");
    }
    for shape in [&[2, 28, 28][..], &[2, 1, 28, 28], &[2, 28, 28, 1], &[2, 784]] {
        npy(&input, shape);
        let place = tempfile::tempdir().unwrap();
        let options = parse(&["--input", input.to_str().unwrap(), "--width", "worst"]).unwrap();
        let prepared = prepared(&options, place.path()).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
        assert_eq!((prepared.samples.count, prepared.samples.shape.as_slice()), (2, &[1, 28, 28][..]));
        assert_eq!(prepared.split.warning(), None);
    }
}

#[test]
fn the_pool_fits_the_memory() {
    assert!(affordable(400_000, 3) >= STRETCH);
    assert!(affordable(26_000_000, 3) < STRETCH);
    assert_eq!(affordable(u64::MAX >> 8, 4), 1);
}
