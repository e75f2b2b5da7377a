"""The file of results: for `run`, which has no packages, and for the scripts."""

import json
from pathlib import Path

MODELS = ("minionn", "lenet", "resnet32")


def blank(system, model, **known):
    """A file's content; what is not known is None or empty."""
    return {
        "format": "seco-peers/1",
        "system": system,
        "model": model,
        "network": "lan",
        "server_count": None,
        "command": None,
        "machine": None,
        "versions": {},
        "notes": [],
        "compared": None,
        "runs": [],
        "skipped": None,
    } | known


def place(folder, system, model):
    return Path(folder) / f"{system}-{model}.json"


def write(folder, file):
    """All at once: a file that is there is whole."""
    path = place(folder, file["system"], file["model"])
    part = path.with_suffix(".part")
    part.write_text(json.dumps(file, indent=1) + "\n")
    part.rename(path)
