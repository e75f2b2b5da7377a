"""What one target's device pays for one size of input: runs the meter's programs and gathers the numbers."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import measure
from .cluster import SERVERS
from .measure import EMULATED, spread, typical

QUIET_MS = 120
"""Longer than QUIC's latest acknowledgement: after this nothing more belongs to a request."""

PROBES = 3


@dataclass
class Meter:
    """The meter's programs for one target."""

    target: str
    folder: Path
    plugin: Path

    def command(self, name, *arguments):
        return [str(self.folder / f"seco-meter-{name}"), *map(str, arguments)]

    def size(self):
        """Bytes of the private client as it would ship: without symbols."""
        tool = "strip" if self.target == "x86_64" else EMULATED[self.target]["strip"]
        with tempfile.NamedTemporaryFile() as stripped:
            subprocess.run([tool, "-o", stripped.name, *self.command("private")], check=True)
            return Path(stripped.name).stat().st_size

    def count(self, command, keep=None):
        if self.target == "x86_64":
            return measure.callgrind(command, keep)
        return measure.emulated(self.target, self.plugin, command)


def measure_entry(meter, cluster, store, repeats, profiles=None):
    """All numbers of the report for one target and the network that `cluster` serves. `store`: a file that
    does not exist yet; `repeats`: processes whose memory is taken; `profiles`: where to keep callgrind's."""
    native = meter.target == "x86_64"
    gateway, network, requests = cluster.gateway, cluster.network, cluster.pool
    host = ["plain", gateway["address"], gateway["server_name"], gateway["pins"][0], network.payload,
            cluster.answer]
    plain, plain_handshake = meter.command(*host, requests, QUIET_MS), [*host, 0, QUIET_MS]

    def private(name, place, requests, probes):
        return [*meter.command(*name, cluster.deployment, place), str(requests), str(probes), str(QUIET_MS)]

    # The core's own work needs no cluster: what is beyond the transport.
    core = meter.count(meter.command("core", SERVERS, network.payload, cluster.values, cluster.width, 3))
    keep = profiles and profiles / network.name
    cluster.fill()
    mine = meter.count(private(["private"], "-", requests, PROBES), keep and keep / "private")
    base = meter.count(plain, keep and keep / "plain")
    # The same session again, in another process: the first run stores it, the second takes it up.
    # Handshakes now and then repeat a packet: the middle of three.
    connects = {
        "handshake": [base] + [meter.count(meter.command(*plain_handshake)) for _ in range(2)],
        "session": [mine] + [meter.count(private(["private"], "-", 0, 0)) for _ in range(2)],
    }
    # The same session again, in other processes: the first run stores it, the others take it up.
    meter.count(private(["private"], store, 0, 0))
    connects["resume"] = [meter.count(private(["private"], store, 0, 0), keep and keep / f"resumed-{i}")
                          for i in range(3)]

    entry = _counts(mine, base, core, connects)
    if native:
        entry.update(_clocks(meter, cluster, private, plain, repeats))
    else:
        entry.update(peak_memory_bytes=mine["memory"], plain_peak_memory_bytes=base["memory"])
    return entry


def _counts(mine, base, core, connects):
    """Instructions and bytes."""
    def connecting(what, key):
        return round(median(run["phases"]["connect"][0][key] for run in connects[what]))

    (read,) = mine["phases"]["read"]
    first, *further = mine["phases"]["request"]
    plain_first, *plain = base["phases"]["request"]
    probes = mine["phases"]["probe"]
    entry = {
        "handshake_instructions": connecting("handshake", "instructions"),
        "session_instructions": connecting("session", "instructions") - connecting("handshake", "instructions"),
        "resume_instructions": connecting("resume", "instructions") - connecting("handshake", "instructions"),
        "read_deployment_instructions": read["instructions"],
        "first_request_instructions": first["instructions"],
        "plain_first_instructions": plain_first["instructions"],
        "request_instructions": typical(further, "instructions"),
        "plain_instructions": typical(plain, "instructions"),
        "request_spread": spread(further, "instructions"),
        "plain_spread": spread(plain, "instructions"),
        "probe_instructions": typical(probes, "instructions"),
        "core_session_instructions": typical(core["phases"]["session"], "instructions"),
        "core_request_instructions": typical(core["phases"]["request"], "instructions"),
        "core_plain_instructions": typical(core["phases"]["plain"], "instructions"),
        "allocations_core": max(cost["allocations"] for cost in core["phases"]["request"]),
    }
    for way in ("up", "down"):
        key = f"bytes_{way}"
        entry[f"handshake_{key}"] = connecting("handshake", key)
        entry[f"session_{key}"] = connecting("session", key) - connecting("handshake", key)
        entry[f"resume_{key}"] = connecting("resume", key) - connecting("handshake", key)
        entry[f"first_request_{key}"] = first[key]
        entry[f"request_{key}"] = typical(further, key)
        entry[f"plain_{key}"] = typical(plain, key)
        entry[f"probe_{key}"] = typical(probes, key)
        entry[f"request_packets_{way}"] = typical(further, f"packets_{way}")
        entry[f"plain_packets_{way}"] = typical(plain, f"packets_{way}")
    return entry


def _clocks(meter, cluster, private, plain, repeats):
    """What only the processor itself can tell: time, memory; and the allocator's counts."""
    requests = cluster.pool
    cluster.fill()
    mine = measure.native(private(["private"], "-", requests, PROBES))
    base = measure.native(plain)
    further, bare = mine["phases"]["request"][1:], base["phases"]["request"][1:]
    (connect,), (handshake,) = mine["phases"]["connect"], base["phases"]["connect"]
    memory, plain_memory = [mine["memory"]], [base["memory"]]
    for _ in range(repeats - 1):
        cluster.fill()
        memory.append(measure.native(private(["private"], "-", requests, 0))["memory"])
        plain_memory.append(measure.native(plain)["memory"])
    cluster.fill()
    heap = measure.native(private(["heap", "private"], "-", requests, 0))["phases"]
    plain_heap = measure.native(meter.command("heap", "plain", *plain[1:]))["phases"]
    return {
        "handshake_cpu_ns": handshake["cpu_ns"],
        "session_cpu_ns": connect["cpu_ns"] - handshake["cpu_ns"],
        "request_cpu_ns": typical(further, "cpu_ns"),
        "plain_cpu_ns": typical(bare, "cpu_ns"),
        "request_wall_ns": typical(further, "wall_ns"),
        "plain_wall_ns": typical(bare, "wall_ns"),
        "peak_memory_bytes": round(median(memory)),
        "plain_peak_memory_bytes": round(median(plain_memory)),
        "request_allocations": round(median(cost["allocations"] for cost in heap["request"][1:])),
        "plain_allocations": round(median(cost["allocations"] for cost in plain_heap["request"][1:])),
        "request_heap_peak": round(median(cost["heap_peak"] for cost in heap["request"][1:])),
        "plain_heap_peak": round(median(cost["heap_peak"] for cost in plain_heap["request"][1:])),
        "session_allocations": heap["connect"][0]["allocations"] - plain_heap["connect"][0]["allocations"],
        "session_heap_peak": heap["connect"][0]["heap_peak"],
        "handshake_heap_peak": plain_heap["connect"][0]["heap_peak"],
    }
