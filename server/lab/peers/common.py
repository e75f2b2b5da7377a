"""What the peers' scripts share: networks, their inputs, what a process used, and the file of results.

Costs are of one prediction, in seconds and bytes; what was not measured is None. Errors are exceptions with a sentence.
"""

import json
import multiprocessing
import os
import queue
import socket
import struct
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import results

REPOSITORY = Path(__file__).resolve().parents[3]
CIFAR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The network, its inputs, mean and deviation of the channels after division by 255; then what the repository has.
NETWORKS = {
    "minionn": ("minionn-mnist.onnx", "mnist-test-200.npy", None, "minionn-digits-20.npy"),
    "lenet": ("lenet-mnist.onnx", "mnist-test-200.npy", None, None),
    "resnet32": ("resnet32-cifar10.onnx", "cifar10-test-100.npy", CIFAR, None),
}
# The report asks no more different questions either.
QUESTIONS = 100


class Skipped(Exception):
    """It cannot be measured here; the message says why."""


class Network:
    """A network as a list of few kinds of steps, its weights, and questions."""

    def __init__(self, name, folder):
        import onnx
        import onnxruntime
        from onnx import numpy_helper

        model, inputs, channels, bundled = NETWORKS[name]
        places = [(Path(folder or "."), inputs), (REPOSITORY / "server/data", bundled)]
        found = [(at / model, at / data) for at, data in places if data and (at / data).is_file() and (at / model).is_file()]
        if not found:
            raise Skipped(f"{model} with {inputs} is not in {folder or 'the repository: give --models'}")
        path, data = found[0]
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        raw = np.load(data)[:QUESTIONS]
        self.inputs = raw.astype(np.float32) / np.float32(255)
        if channels:
            mean, deviation = (np.array(c, np.float32).reshape(1, 3, 1, 1) for c in channels)
            self.inputs = (self.inputs - mean) / deviation
        # onnxruntime folds what is constant, which leaves steps that `answer` knows.
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        with tempfile.TemporaryDirectory(prefix="seco-peers-") as place:
            options.optimized_model_filepath = f"{place}/folded.onnx"
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            graph = onnx.load(options.optimized_model_filepath).graph
        self.inputs = self.inputs.reshape(-1, *self.session.get_inputs()[0].shape[1:])
        values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.steps = [
            (n.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}, list(n.input), n.output[0])
            for n in graph.node
        ]
        # Positions and paddings are no secrets, weights are.
        self.public = {k: v for k, v in values.items() if v.dtype == np.int64}
        self.weights = {k: v for k, v in values.items() if v.dtype == np.float32 and v.ndim > 0}
        self.output = graph.output[0].name

    def question(self, job, request):
        """The input of this repetition's request; the one before the first is that of the set-up."""
        return self.inputs[(job["first"] + request) % len(self.inputs)][None]

    def clear(self, x):
        """onnxruntime's logits."""
        return self.session.run(None, {"input": x})[0]


def answer(network, ops, x, weights):
    """The network's logits of `x`, computed with `ops`: conv, gemm, relu and pad of a framework."""
    values = {"input": x, **weights}
    for kind, attributes, names, output in network.steps:
        at = values.get(names[0])
        if kind == "Conv":
            pads, strides = attributes["pads"], attributes["strides"]
            if len(set(pads)) > 1 or len(set(strides)) > 1 or attributes.get("group", 1) != 1:
                raise Skipped(f"a convolution of another kind: {attributes}")
            at = ops.conv(at, values[names[1]], values[names[2]], strides[0], pads[0])
        elif kind == "Gemm":
            at = ops.gemm(at, values[names[1]], values[names[2]])
        elif kind == "Relu":
            at = ops.relu(at)
        elif kind == "Add":
            at = at + values[names[1]]
        elif kind == "AveragePool":
            k, (n, c, h, w) = attributes["kernel_shape"][0], at.shape
            at = at.reshape(n, c, h // k, k, w // k, k).sum(5).sum(3) * (1.0 / (k * k))
        elif kind == "Flatten":
            at = at.reshape(1, -1)
        elif kind == "Slice":
            starts, ends, axes, steps = (network.public[name].tolist() for name in names[1:5])
            key = [slice(None)] * 4
            for start, end, axis, step in zip(starts, ends, axes, steps):
                key[axis] = slice(start, None if end > 1 << 40 else end, step)
            at = at[tuple(key)]
        elif kind == "Pad":
            pads = network.public[names[1]].tolist()
            if pads[1] != pads[5] or any(p for i, p in enumerate(pads) if i not in (1, 5)):
                raise Skipped(f"a padding of another kind: {pads}")
            at = ops.pad_channels(at, pads[1])
        else:
            raise Skipped(f"an ONNX step of another kind: {kind}")
        values[output] = at
    return values[network.output]


def connections():
    """Bytes sent and received by each TCP connection of this process: the kernel's TCP_INFO, retransmissions left out."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
            if not link.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as held:
                if held.family not in (socket.AF_INET, socket.AF_INET6) or held.type & 0xF != socket.SOCK_STREAM:
                    continue
                info = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        except OSError:
            continue
        # struct tcp_info of Linux 4.19 and later: bytes_received, bytes_sent, bytes_retrans; state 10 listens.
        if info[0] != 10 and len(info) >= 216:
            received, sent, again = (struct.unpack_from("<Q", info, at)[0] for at in (128, 200, 208))
            found[link] = (sent - again, received)
    return found


def used():
    """What this process has used so far."""
    return {"cpu": time.process_time(), "wall": time.monotonic(), "tcp": connections()}


def between(before, after, of=1):
    """CPU seconds, bytes up and down. Bytes are None where a connection ended in between, for its count is gone."""
    if not before["tcp"].keys() <= after["tcp"].keys():
        up = down = None
    else:
        earlier = [before["tcp"].get(link, (0, 0)) for link in after["tcp"]]
        both = [(now[0] - then[0], now[1] - then[1]) for now, then in zip(after["tcp"].values(), earlier)]
        up, down = sum(b[0] for b in both) / of, sum(b[1] for b in both) / of
    return (after["cpu"] - before["cpu"]) / of, up, down


def cost(start, ready, done, requests):
    """The report's fields of one party."""
    online, setup = between(ready, done, requests), between(start, ready)
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    names = ("cpu_s", "bytes_up", "bytes_down")
    fields = {f"online_{name}": value for name, value in zip(names, online)}
    fields |= {f"setup_{name}": value for name, value in zip(names, setup)}
    # These frameworks do all for a prediction when it is asked for, or do not tell what they did ahead.
    fields |= {f"preprocessing_{name}": None for name in names}
    return fields | {"peak_memory_bytes": peak, "storage_bytes": None}


def measure(party, roles, job):
    """One repetition: a process for each role, which is started anew. `party(role, network, job)` yields when it is
    set up (the first prediction included), then once for each answer: the user's logits, of others anything."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(len(roles)), context.Queue()
    processes = [context.Process(target=_run, args=(party, role, job, gate, results), daemon=True) for role in roles]
    for process in processes:
        process.start()
    told = {}
    deadline = time.monotonic() + job["limit_s"]
    try:
        while len(told) < len(roles):
            try:
                role, result = results.get(timeout=1)
            except queue.Empty:
                # Has somebody died, or is it too late?
                dead = [p.exitcode for p in processes if p.exitcode not in (None, 0)]
                if dead or time.monotonic() > deadline:
                    raise Skipped(f"a party ended with {dead[0]}" if dead else f"not done in {job['limit_s']} s") from None
                continue
            if isinstance(result, str):
                raise Skipped(result)
            told[role] = result
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
    user = told["user"]
    return {
        "user": user["cost"],
        "servers": [told[role]["cost"] for role in roles if role != "user"],
        "waiting_s": user["waiting_s"],
        "preprocessing_s": None,
        "setup_s": max(result["setup_s"] for result in told.values()),
        "answers": user["answers"],
    }


def _run(party, role, job, gate, results):
    # Frameworks print to both; standard output is for results.
    os.dup2(2, 1)
    try:
        network = Network(job["model"], job["folder"])
        start = used()
        work = party(role, network, job)
        next(work)
        # Nobody sends before all have read their counters.
        gate.wait(job["limit_s"])
        ready = used()
        gate.wait(job["limit_s"])
        answers, waits = [], []
        for _ in range(job["requests"]):
            since = time.monotonic()
            answers.append(next(work))
            waits.append(time.monotonic() - since)
        # Everybody's last bytes have arrived.
        gate.wait(job["limit_s"])
        told = cost(start, ready, used(), job["requests"])
        mine = [np.asarray(a).reshape(-1).tolist() for a in answers] if role == "user" else []
        results.put((role, {"cost": told, "setup_s": ready["wall"] - start["wall"], "answers": mine,
                            "waiting_s": sum(waits) / len(waits)}))
        gate.wait(60)
    except BaseException as error:  # noqa: BLE001 -- it is told, in the file of results too
        results.put((role, f"{role}: {type(error).__name__}: {error}"[:500]))
        raise


def connect(port, seconds=300):
    """A connection to a server on loopback, as soon as it listens."""
    end = time.monotonic() + seconds
    while True:
        try:
            held = socket.create_connection(("127.0.0.1", port))
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return held
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def accept(listener):
    held = listener.accept()[0]
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return held


def send(held, content):
    """A message: its length in four bytes, and it."""
    held.sendall(struct.pack("<I", len(content)) + content)


def receive(held):
    """A message."""
    (length,) = struct.unpack("<I", _exactly(held, 4))
    return _exactly(held, length)


def _exactly(held, length):
    content = b""
    while len(content) < length:
        more = held.recv(length - len(content))
        if not more:
            raise ConnectionError("the other party has left")
        content += more
    return content


def free_ports(count):
    """Ports that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def machine():
    """The processor and how many there are."""
    with open("/proc/cpuinfo") as told:
        names = [line.split(":", 1)[1].strip() for line in told if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def main(party, roles, packages, notes):
    """Measures the system of the command line with the networks that were asked for; a file for each in the folder."""
    system, options = sys.argv[1], json.loads(sys.argv[2])
    load = os.getloadavg()[0] / os.cpu_count()
    for name in options["models"]:
        file = results.blank(
            system,
            name,
            server_count=len(roles) - 1,
            command=options["command"],
            machine=machine(),
            versions={name: version(name) for name in packages},
            notes=notes,
            compared="label with that of onnxruntime, in floating point",
        )
        try:
            network = Network(name, options["folder"])
            job = {"model": name, "folder": options["folder"], "requests": options["requests"], "limit_s": options["limit_s"]}
            for repetition in range(options["runs"]):
                job |= {"first": repetition * options["requests"], "ports": free_ports(6)}
                since = time.monotonic()
                run = measure(party, roles, job)
                expected = [network.clear(network.question(job, i)).reshape(-1) for i in range(job["requests"])]
                answers = [np.array(a, np.float32) for a in run.pop("answers")]
                run["count"] = len(answers)
                run["equal"] = sum(int(a.argmax() == e.argmax()) for a, e in zip(answers, expected))
                run["largest_error"] = max(float(abs(a - e).max()) for a, e in zip(answers, expected))
                run["load_at_start"] = load
                file["runs"].append(run)
                print(f"{system}, {name}, run {repetition + 1}: {run['equal']} of {run['count']} labels equal, waiting "
                      f"{run['waiting_s']:.3f} s; {time.monotonic() - since:.1f} s in all", flush=True)
        except Skipped as why:
            file["skipped"] = str(why)
            print(f"SKIPPED {system}, {name}: {why}", flush=True)
        results.write(options["out"], file)
