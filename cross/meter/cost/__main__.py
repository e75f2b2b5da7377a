"""`cross/cost` builds what is needed and starts this; see there."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import limits, models, report
from .cluster import SERVERS, Cluster
from .device import Meter, measure_entry
from .measure import EMULATED


def main():
    arguments = read_arguments()
    start = time.monotonic()
    meters = {"x86_64": Meter("x86_64", arguments.x86_64, None)}
    for target in EMULATED:
        if folder := getattr(arguments, target):
            meters[target] = Meter(target, folder, arguments.plugin)
    networks = [n for n in models.NETWORKS if not arguments.quick or n.name != "cifar-size"]
    result = {target: {} for target in meters}
    with tempfile.TemporaryDirectory(prefix="seco-cost-") as folder:
        for network in networks:
            with Cluster(arguments.seco, network, models.POOLS[network.name], folder) as cluster:
                for target, meter in meters.items():
                    say(f"{network.payload} bytes on {target} ({time.monotonic() - start:.0f} s)")
                    store = Path(folder) / f"{network.name}-{target}.session"
                    repeats = 2 if network.name == "photo-size" else 3 if arguments.quick else 5
                    entry = measure_entry(meter, cluster, store, repeats, arguments.profiles)
                    result[target][str(network.payload)] = entry
    result["sizes"] = {target: meter.size() for target, meter in meters.items()}
    if not arguments.quick:
        result["two_party"] = two_party(arguments.seco)
    result["servers"] = SERVERS
    result["tools"] = tools(arguments)
    result["limits"] = limits.check(result)
    result["seconds"] = round(time.monotonic() - start)
    report.write(result, arguments.out)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print(report.summary(result))
    if not all(limit["holds"] for limit in result["limits"]):
        say("a limit of cross/cost-limits.json is exceeded")
        return 1
    return 0


def read_arguments():
    parser = argparse.ArgumentParser(prog="cost")
    parser.add_argument("--seco", type=Path, required=True)
    parser.add_argument("--x86_64", type=Path, required=True)
    parser.add_argument("--aarch64", type=Path)
    parser.add_argument("--armv7", type=Path)
    parser.add_argument("--plugin", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profiles", type=Path, help="keep callgrind's profiles there")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def two_party(seco):
    """What the device of a two-party protocol does: `seco bench device`."""
    done = subprocess.run([seco, "bench", "device", "--json"], capture_output=True, text=True)
    if done.returncode:
        say(f"without the two-party device: {done.stderr.strip().splitlines()[0]}")
        return None
    return json.loads(done.stdout)


def tools(arguments):
    """Versions: counts are comparable between equal ones only."""
    commands = {"rustc": ["rustc", "--version"], "valgrind": ["valgrind", "--version"]}
    if arguments.aarch64:
        commands["rustc for ARM"] = ["/usr/bin/rustc", "--version"]
        commands["qemu"] = ["qemu-aarch64", "--version"]
    said = {name: subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
            for name, command in commands.items()}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            said["processor"] = line.split(":", 1)[1].strip()
            break
    return said


def say(text):
    print(f"cost: {text}", file=sys.stderr, flush=True)


sys.exit(main())
