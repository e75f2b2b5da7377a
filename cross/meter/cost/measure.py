"""Runs a seco-meter program, natively or under an instruction counter, and returns what its phases cost."""

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

TRAFFIC = ("bytes_up", "bytes_down", "packets_up", "packets_down")

# Number of the system call `write` for QEMU's plugin, and the processor that is emulated: those of
# a Raspberry Pi 3 in 64-bit mode, and of a Raspberry Pi 2.
EMULATED = {
    "aarch64": {"qemu": "qemu-aarch64", "write": 64, "cpu": "cortex-a53", "root": "/usr/aarch64-linux-gnu", "strip": "aarch64-linux-gnu-strip"},
    "armv7": {"qemu": "qemu-arm", "write": 4, "cpu": "cortex-a7", "root": "/usr/arm-linux-gnueabihf",
              "strip": "arm-linux-gnueabihf-strip"},
}

# Where QEMU puts the guest's address 0, so that the guest's pages can be told from the emulator's.
GUEST_BASE = 0x100000000000
GUEST_SIZE = 1 << 40

# callgrind counts every byte that `rep movsb` copies as an instruction. With these the C library copies
# with vector instructions whatever the length, as it does below 2 KB by itself.
PLAIN_COPIES = "glibc.cpu.x86_rep_movsb_threshold=0x7fffffff:glibc.cpu.x86_rep_stosb_threshold=0x7fffffff"


def native(arguments):
    """Its clock and its memory."""
    done = subprocess.run(arguments, capture_output=True, text=True)
    return _phases(arguments, done.returncode, done.stdout.splitlines(), done.stderr)


def callgrind(arguments, keep=None):
    """With `instructions`, counted by valgrind on this machine. `keep`: folder for the profiles."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={folder}/out",
                   "--dump-before=*phase_begin*", "--dump-before=*phase_end*", *arguments]
        done = subprocess.run(command, capture_output=True, text=True,
                              env={**os.environ, "GLIBC_TUNABLES": PLAIN_COPIES})
        counts = []
        for dump in sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:])):
            text = dump.read_text()
            trigger = re.search(r"^desc: Trigger: (.*)$", text, re.M).group(1)
            if "phase_end" in trigger:
                counts.append(int(re.search(r"^(?:totals|summary): (\d+)", text, re.M).group(1)))
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(dump, keep / f"{len(counts):02}.callgrind")
    run = _phases(arguments, done.returncode, done.stdout.splitlines(), done.stderr)
    return _with_instructions(run, counts)


def emulated(target, plugin, arguments):
    """With `instructions`, counted by the plugin for QEMU; memory is the guest's resident pages."""
    how = EMULATED[target]
    with tempfile.TemporaryDirectory() as folder:
        counts_file = Path(folder) / "counts"
        command = [how["qemu"], "-cpu", how["cpu"], "-L", how["root"], "-B", hex(GUEST_BASE),
                   "-plugin", f"{plugin},out={counts_file},write={how['write']}", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines, memory = [], 0
        for line in process.stdout:
            lines.append(line)
            memory = max(memory, _guest_memory(process.pid))
        error = process.stderr.read()
        process.wait()
        notes = [int(line) for line in counts_file.read_text().splitlines()]
    run = _phases(arguments, process.returncode, lines, error)
    # One note for each line: of a phase it begins, is done, and what it cost.
    marks = [(json.loads(line), note) for line, note in zip(lines, notes)]
    begins = [note for line, note in marks if "begin" in line]
    dones = [note for line, note in marks if "done" in line]
    run["memory"] = memory
    return _with_instructions(run, [done - begin for begin, done in zip(begins, dones)])


def _guest_memory(pid):
    """Bytes of resident pages in the guest's part of the address space."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text()
    except OSError:
        return 0
    total, inside = 0, False
    for line in text.splitlines():
        start = re.match(r"^([0-9a-f]+)-[0-9a-f]+ ", line)
        if start:
            inside = GUEST_BASE <= int(start.group(1), 16) < GUEST_BASE + GUEST_SIZE
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def _phases(arguments, status, lines, error):
    """{"phases": {name: [cost, ...]}, "order": [cost, ...], "memory": bytes}"""
    if status:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {error.strip() or f'status {status}'}")
    run, before = {"phases": {}, "order": [], "memory": 0}, dict.fromkeys(TRAFFIC, 0)
    for line in map(json.loads, lines):
        if "peak_memory_bytes" in line:
            run["memory"] = line["peak_memory_bytes"]
        elif "end" in line:
            # The program tells totals of its connection.
            cost = {**line, **{key: max(line[key] - before[key], 0) for key in TRAFFIC}}
            if line["bytes_up"]:
                before = line
            run["phases"].setdefault(cost.pop("end"), []).append(cost)
            run["order"].append(cost)
    return run


def _with_instructions(run, counts):
    if len(counts) != len(run["order"]):
        raise RuntimeError(f"{len(counts)} counts for {len(run['order'])} phases")
    for cost, count in zip(run["order"], counts):
        cost["instructions"] = count
    return run


def typical(costs, key):
    """The mean without the smallest and the largest tenth. Not the median: every third request carries a
    packet more, by which QUIC grants streams, and a device pays for those too."""
    values = sorted(cost[key] for cost in costs)
    outer = len(values) // 10
    return round(statistics.fmean(values[outer:len(values) - outer]))


def spread(costs, key):
    """Smallest, median and largest, and of how many."""
    values = [cost[key] for cost in costs]
    return {"min": min(values), "median": round(statistics.median(values)), "max": max(values),
            "samples": len(values)}
