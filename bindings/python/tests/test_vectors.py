"""What a package sees of the vectors of all languages (`sdk/core/tests/vectors/README.md`)."""

import json

import pytest

import seco
from cluster import DIGITS, LABELS, ROOT

FOLDER = ROOT / "sdk" / "core" / "tests" / "vectors"
DEPLOYMENTS = json.loads((FOLDER / "wire-2" / "deployment.json").read_text())
SESSIONS = json.loads((FOLDER / "wire-2" / "session.json").read_text())


def named(*entries):
    return pytest.mark.parametrize("entry", entries, ids=[entry["name"] for entry in entries])


def deployment(entry):
    if "text" in entry:
        return "\n".join(entry["text"])
    (of,) = [good for good in DEPLOYMENTS["good"] if good["name"] == entry["of"]]
    text = deployment(of)
    for before, after in entry["edits"]:
        assert before in text
        text = text.replace(before, after, 1)
    return text


def fails(entry):
    # Where nobody is, it is tried for as long as it may be.
    with pytest.raises(seco.SecoError) as told:
        seco.Client(deployment(entry), connect_timeout=0.5, transport="tcp")
    assert told.value.code == entry["error"], told.value
    return str(told.value)


@named(*DEPLOYMENTS["good"])
def test_a_good_deployment_file_leads_to_an_address_where_nobody_is(entry):
    fails(entry)


@named(*DEPLOYMENTS["bad"])
def test_a_bad_deployment_file_is_refused_where_it_is_wrong(entry):
    told = fails(entry)
    assert f"deployment, {entry['at']}: " in told and entry["problem"] in told


class Store:
    """Counts what is saved."""

    def __init__(self, entry):
        text = entry["blob"] if "blob" in entry else (FOLDER / entry["file"]).read_text()
        self.kept = self.saved = bytes.fromhex(text)
        self.saves = 0

    def load(self):
        return self.saved

    def save(self, session):
        self.saved = session
        self.saves += 1


@named(*SESSIONS["bad"], *SESSIONS["good"])
def test_a_new_session_takes_the_place_of_one_that_is_old_damaged_or_other_servers(entry, cluster):
    store = Store(entry)
    seco.Client(cluster.path, store).close()
    with seco.Client(cluster.path, store) as client:
        assert client.infer(DIGITS[14]).label == LABELS[14]
    assert store.saved != store.kept
    assert store.saves == 1, "the new one is resumed"
