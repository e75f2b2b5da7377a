"""A real cluster: gateway and remote servers as processes of this machine."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import numpy as np

TARGET = pathlib.Path(os.environ["SECO_TARGET"])
ROOT = pathlib.Path(os.environ["SECO_ROOT"])
DATA = ROOT / "server" / "data"

DIGITS = np.load(DATA / "minionn-digits-20.npy")
LABELS = np.load(DATA / "minionn-labels-20.npy").reshape(-1).tolist()
SMALL = np.load(DATA / "mlp-digits-20.npy")


class Cluster:
    """Serves `model`; guarded, only to who shows its token."""

    def __init__(self, model="minionn", servers=3, guarded=False):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="seco-test-"))
        self.path = self.folder / "deployment.toml"
        token, log = self.folder / "token", self.folder / "log"
        command = [TARGET / "release" / "seco", "demo", "--keep", "--model", model, "--servers", str(servers)]
        command += ["--count", "1", "--listen", "127.0.0.1", "--deployment", self.path]
        command += ["--token", token] if guarded else []
        with open(log, "wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        end = time.monotonic() + 120
        while "--deployment" not in log.read_text():
            if self._process.poll() is not None or time.monotonic() > end:
                told = log.read_text()
                self.close()
                raise RuntimeError(f"the cluster did not start:\n{told}")
            time.sleep(0.05)
        self.deployment = self.path.read_text()
        self.token = token.read_text().strip() if guarded else None

    def close(self):
        """Ends all servers."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
