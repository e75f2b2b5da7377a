"""Writes REPORT.md, report.json and the charts."""

import json

from . import svg

TARGETS = {"x86_64": "x86-64", "aarch64": "aarch64", "armv7": "armv7"}
PAYLOADS = {"784": "784 B (MNIST)", "3072": "3,072 B (CIFAR)", "150528": "150,528 B (224x224x3)"}

METHOD = """\
## What the numbers are

- **Private** is `seco-sdk` against a real cluster: a gateway and two remotes, processes of their own, that run
  the whole protocol on a network with this input size (`cross/meter/cost/models.py`). **Plain** is a QUIC
  client without the SDK (`cross/meter/src/plain.rs`): the same settings, the same gateway, as many bytes up
  and down, no masking, no session. Both are built with the profile that ships (`mobile`).
- A **request** is one that stands alone: sending, waiting, reading the answer, and QUIC's acknowledgements in
  the 120 ms after it. The first request of a connection is listed apart. Requests are averaged without
  the smallest and largest tenth: every third carries a packet more, by which QUIC grants streams, for the plain
  client as well. **Session** and **resuming** are beyond the plain client's handshake.
- **Instructions** are those of the process in user mode: TLS, QUIC and the runtime included, the kernel's not.
  On x86-64 valgrind's callgrind counts them; it knows no AVX-512 and no SHA extension. Copies are
  counted as vector instructions (`GLIBC_TUNABLES`), for callgrind counts every byte of `rep movsb` as an
  instruction. On ARM the *whole client* runs under QEMU's user mode against the native servers, and a plugin of
  60 lines (`cross/meter/qemu/count.c`) counts; as the emulated processors (`cortex-a53`, `cortex-a7`) are not
  slowed down by it, QUIC's timers see an ordinary machine. `seco-core alone` is the device's work without a
  socket: drawing and sealing keys; masking, framing, reading and unmasking.
- **Bytes** are UDP payload. **CPU time** and **wall time** are taken without any counter, on this machine, with
  the servers on the same processor; there are none for ARM, whose processor is emulated.
- **Peak memory** is `VmHWM` of a whole process, the median of several; on ARM the guest's resident pages.
- **Allocations** are counted by an allocator that wraps the system's (`seco-meter-heap`).
- No energy is given: that takes a device, its radio and a meter.
"""


def write(result, folder):
    """All files, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "REPORT.md").write_text(markdown(result))
    for name, text in charts(result).items():
        (folder / name).write_text(text)


def summary(result):
    """A few lines for a terminal."""
    lines = [f"{'':12}{'payload':>9}{'private':>12}{'plain':>12}{'ratio':>7}{'bytes up':>10}{'plain':>9}"]
    for target, payload, entry in _entries(result):
        ratio = entry["request_instructions"] / entry["plain_instructions"]
        lines.append(f"{TARGETS[target]:12}{int(payload):>9,}{entry['request_instructions']:>12,}"
                     f"{entry['plain_instructions']:>12,}{ratio:>7.2f}{entry['request_bytes_up']:>10,}"
                     f"{entry['plain_bytes_up']:>9,}")
    for limit in result["limits"]:
        mark = "ok" if limit["holds"] else "EXCEEDED"
        lines.append(f"{mark:9}{limit['value']:>12,} of {limit['at_most']:,}: {limit['what']}")
    return "\n".join(lines)


def markdown(result):
    """The whole report."""
    text = ["# What a private request costs the device", "",
            "Written by `cross/cost`; do not edit. Fields: [cross/meter/README.md](meter/README.md).", ""]
    text += [f"![]({name})" for name in charts(result)] + [""]
    text += ["## Further requests", ""]
    text += _table(
        ["", "input", "instructions: private", "plain", "ratio", "of it seco-core", "bytes up: private", "plain",
         "bytes down: private", "plain"],
        [[TARGETS[target], PAYLOADS[payload], _n(e["request_instructions"]), _n(e["plain_instructions"]),
          f"{e['request_instructions'] / e['plain_instructions']:.2f}", _n(e["core_request_instructions"]),
          _n(e["request_bytes_up"]), _n(e["plain_bytes_up"]), _n(e["request_bytes_down"]), _n(e["plain_bytes_down"])]
         for target, payload, e in _entries(result)])
    text += ["Smallest, median and largest of them:", ""]
    text += _table(
        ["", "input", "private", "plain", "samples"],
        [[TARGETS[target], PAYLOADS[payload], _range(e["request_spread"]), _range(e["plain_spread"]),
          f"{e['request_spread']['samples']} / {e['plain_spread']['samples']}"]
         for target, payload, e in _entries(result)])
    text += ["## Sessions and first requests", "",
             f"A session seals a key to each of {result['servers']} servers, once in weeks; a new connection "
             "resumes it without sealing anything.", ""]
    text += _table(
        ["", "input", "handshake", "session", "of it seco-core", "resuming", "first request: private", "plain"],
        [[TARGETS[target], PAYLOADS[payload], _n(e["handshake_instructions"]), _n(e["session_instructions"]),
          _n(e["core_session_instructions"]), _n(e["resume_instructions"]), _n(e["first_request_instructions"]),
          _n(e["plain_first_instructions"])] for target, payload, e in _entries(result)])
    text += ["Instructions above, bytes up / down below.", ""]
    text += _table(
        ["", "input", "handshake", "session", "resuming", "first request"],
        [[TARGETS[target], PAYLOADS[payload],
          *(f"{_n(e[what + '_bytes_up'])} / {_n(e[what + '_bytes_down'])}"
            for what in ("handshake", "session", "resume", "first_request"))]
         for target, payload, e in _entries(result)])
    text += ["## Memory and allocations", ""]
    text += _table(
        ["", "input", "peak memory: private", "plain", "allocations per request: private", "plain", "of seco-core"],
        [[TARGETS[target], PAYLOADS[payload], _n(e["peak_memory_bytes"]), _n(e["plain_peak_memory_bytes"]),
          _n(e.get("request_allocations")), _n(e.get("plain_allocations")), _n(e["allocations_core"])]
         for target, payload, e in _entries(result)])
    text += ["## Time, x86-64", ""]
    text += _table(
        ["input", "CPU of a request: private", "plain", "CPU of a session", "of a handshake", "waiting: private", "plain"],
        [[PAYLOADS[payload], _ms(e["request_cpu_ns"]), _ms(e["plain_cpu_ns"]), _ms(e["session_cpu_ns"]),
          _ms(e["handshake_cpu_ns"]), _ms(e["request_wall_ns"]), _ms(e["plain_wall_ns"])]
         for target, payload, e in _entries(result) if target == "x86_64"])
    text += ["## Size", "", "The private client of this report, stripped:", ""]
    text += _table(["target", "bytes"], [[TARGETS[t], _n(size)] for t, size in result["sizes"].items()])
    if result.get("two_party"):
        text += ["## A two-party device beside it", "",
                 "In DELPHI's protocol the device itself is one of two parties: it encrypts, evaluates circuits and "
                 "takes part in preprocessing. This project's protocol with two servers, one of them on the device, "
                 "measured by `seco bench device --json` on x86-64:", ""]
        text += _table(["what", "value"], [[key, value] for key, value in _flat(result["two_party"])])
    text += ["## Limits", ""]
    text += _table(["what", "measured", "limit", ""],
                   [[limit["what"], _n(limit["value"]), _n(limit["at_most"]), "ok" if limit["holds"] else "**exceeded**"]
                    for limit in result["limits"]])
    text += [METHOD]
    text += ["Measured with " + "; ".join(f"{name}: {said}" for name, said in result["tools"].items())
             + f". It took {result['seconds']} s.", ""]
    return "\n".join(text)


def charts(result):
    """{file name: SVG}"""
    kinds = {"private": "private", "plain": "plain"}
    instructions, traffic = [], []
    for payload in PAYLOADS:
        rows = [(target, result[target][payload]) for target in TARGETS if payload in result.get(target, {})]
        for index, (target, e) in enumerate(rows):
            heading = f"input of {PAYLOADS[payload]}" if index == 0 else ""
            instructions.append((heading, TARGETS[target], [("private", e["request_instructions"]),
                                                            ("plain", e["plain_instructions"])]))
        if rows:
            e = rows[0][1]
            traffic.append((f"input of {PAYLOADS[payload]}", "up", [("private", e["request_bytes_up"]),
                                                                   ("plain", e["plain_bytes_up"])]))
            traffic.append(("", "down", [("private", e["request_bytes_down"]), ("plain", e["plain_bytes_down"])]))
    found = {
        "instructions.svg": svg.bars("Instructions of a further request", ["Each panel has a scale of its own."],
                                     instructions, kinds, _short),
        "bytes.svg": svg.bars("UDP bytes of a further request, x86-64", ["Each panel has a scale of its own."],
                              traffic, kinds, _n),
    }
    once = [("" if index else f"{result['servers']} servers", TARGETS[target],
             [("private", result[target]["784"]["session_instructions"]),
              ("other", result[target]["784"]["resume_instructions"]),
              ("plain", result[target]["784"]["handshake_instructions"])])
            for index, target in enumerate(t for t in TARGETS if "784" in result.get(t, {}))]
    found["session.svg"] = svg.bars("Instructions of a session", [], once, {
        "private": "session set-up, beyond the handshake", "other": "resuming it, beyond the handshake",
        "plain": "the handshake"}, _short)
    return found


def _entries(result):
    return [(target, payload, result[target][payload])
            for target in TARGETS for payload in PAYLOADS if payload in result.get(target, {})]


def _table(head, rows):
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
    return [line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def _flat(value, path=""):
    """Leaves of nested JSON with their paths."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _flat(inner, f"{path}.{key}" if path else key)]
    if isinstance(value, list):
        return [leaf for index, inner in enumerate(value) for leaf in _flat(inner, f"{path}[{index}]")]
    return [(path, _n(value) if isinstance(value, int) else value)]


def _range(spread):
    return f"{_n(spread['min'])} / {_n(spread['median'])} / {_n(spread['max'])}"


def _n(value):
    return "-" if value is None else f"{value:,}"


def _ms(nanoseconds):
    return f"{nanoseconds / 1e6:.2f} ms"


def _short(value):
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.1f} k"
