"""A real cluster on this machine: a gateway and two remotes, each a process of its own (`seco serve`)."""

import json
import math
import os
import queue
import subprocess
import threading
import tomllib
from pathlib import Path

SERVERS = 3
NAMES = ["gateway"] + [f"remote-{i}" for i in range(1, SERVERS)]


class Cluster:
    """Serves `network` from a pool of `pool` bundles, which is not refilled before it is empty: so nothing
    is preprocessed while a device is measured. Use as a context manager."""

    def __init__(self, seco, network, pool, folder):
        self.seco, self.network, self.pool = str(seco), network, pool
        self.folder = Path(folder) / network.name
        self.folder.mkdir(parents=True)
        self.processes, self.events = [], queue.Queue()
        self.ready_bundles, self.done, self.asked, self.addresses = 0, 0, 0, {}

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        # Closing their standard input is the order to end.
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def fill(self):
        """Waits until the pool is full, for a device that is going to ask `pool` times. It is then filled
        anew, and not before."""
        while self.done < self.asked or self.ready_bundles < self.pool:
            self._absorb(timeout=300)
        self.asked += self.pool

    def _run(self, *arguments):
        done = subprocess.run([self.seco, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"seco {arguments[0]}: {done.stderr.strip()}")

    def _start(self):
        keys = self.folder / "keys"
        onnx, inputs = self.network.write(self.folder)
        self._run("split", "--model", onnx, "--calibrate", inputs, "--servers", SERVERS, "--out",
                  self.folder / "parts")
        for name in NAMES:
            self._run("keygen", "--out", keys, "--name", name)
        # The last first: a server dials those with higher numbers, at ports that the system chose.
        for index in reversed(range(SERVERS)):
            self._spawn(index, keys)
            while index not in self.addresses:
                self._absorb(timeout=60)
        self.deployment = self.folder / "deployment.toml"
        sealing = [part for name in NAMES for part in ("--sealing-key", keys / f"{name}.sealing.pub")]
        self._run("deployment", "--address", self.addresses[0]["device"], "--certificate",
                  keys / "gateway.cert.pem", *sealing, "--model", self.folder / "parts" / "server-0.seco",
                  "--out", self.deployment)
        told = tomllib.loads(self.deployment.read_text())
        self.gateway = told["gateway"]
        self.width = told["model"]["output_width"]
        self.values = sum(math.prod(output["shape"]) for output in told["model"]["outputs"])
        self.answer = (self.values * self.width + 7) // 8

    def _spawn(self, index, keys):
        text = [f"index = {index}", f'name = "{NAMES[index]}"',
                f'model = "{self.folder}/parts/server-{index}.seco"',
                f'state = "{self.folder}/state-{index}"', "[identity]"]
        for key, file in [("certificate", "cert.pem"), ("key", "key.pem"), ("opening_key", "opening.key")]:
            text.append(f'{key} = "{keys}/{NAMES[index]}.{file}"')
        text += ["[listen]", 'mesh = "127.0.0.1:0"'] + ['device = "127.0.0.1:0"'] * (index == 0)
        for peer in range(SERVERS):
            if peer != index:
                text += ["[[peers]]", f"index = {peer}", f'name = "{NAMES[peer]}"',
                         f'certificate = "{keys}/{NAMES[peer]}.cert.pem"']
            if peer > index:
                text.append(f'address = "{self.addresses[peer]["mesh"]}"')
        text += ["[pool]", f"size = {self.pool}", "low = 0"]
        config = self.folder / f"server-{index}.toml"
        config.write_text("\n".join(text) + "\n")
        log = open(self.folder / f"server-{index}.log", "w")
        process = subprocess.Popen([self.seco, "serve", "--events", "--with-parent", "--config", str(config)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                   env={**os.environ, "SECO_LOG": "warn"})
        log.close()
        self.processes.append(process)
        threading.Thread(target=self._read, args=(index, process), daemon=True).start()

    def _read(self, index, process):
        for line in process.stdout:
            self.events.put((index, json.loads(line)))
        self.events.put((index, {"event": "ended"}))

    def _absorb(self, timeout):
        try:
            index, event = self.events.get(timeout=timeout)
        except queue.Empty:
            raise RuntimeError(f"{self.network.name}: the servers were silent for {timeout} s") from None
        kind = event["event"]
        if kind == "listening":
            self.addresses[index] = event
        elif kind in ("bundle", "inference") and index == 0:
            self.ready_bundles = event["pool"]
            self.done += kind == "inference"
        elif kind in ("failed", "ended"):
            log = (self.folder / f"server-{index}.log").read_text().strip()
            raise RuntimeError(f"{NAMES[index]}: {event.get('what', 'ended')} {log}")
