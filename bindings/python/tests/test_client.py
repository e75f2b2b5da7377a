"""The client that blocks."""

import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import seco
from cluster import DIGITS, LABELS, SMALL, Cluster

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
QUANTISE = f"[model.quantise]\nscale = [{1.0 / 255}]\noffset = [0]\n\n[[model.outputs]]"


def test_twenty_digits_are_right(cluster):
    with seco.Client(cluster.path) as client:
        assert client.input_shape == (1, 28, 28)
        assert client.transport == "quic"
        for digit, label in zip(DIGITS, LABELS):
            prediction = client.infer(digit)
            assert prediction.label == label == prediction.logits.argmax()
            assert prediction.logits.dtype == np.int32
            assert prediction.logits.shape == (10,)
        cost = client.last_cost
        assert cost.bytes_up > 784 and cost.wall_us > 0
        assert client.total_cost.bytes_up > 20 * 784
        assert [prediction.label for prediction in client.infer_many(DIGITS)] == LABELS
        assert [prediction.label for prediction in client.infer_many(list(DIGITS[:3]))] == LABELS[:3]
        assert client.infer_many([]) == []
        assert client.infer(DIGITS[0].tobytes()).label == LABELS[0]


def test_an_answer_is_read_as_numbers_and_a_class_with_its_name(cluster):
    named = cluster.deployment.replace("[[model.outputs]]", f"[[model.outputs]]\nclasses = {NAMES!r}".replace("'", '"'))
    with seco.Client(named.replace('last = "none"', 'last = "softmax"')) as client:
        prediction = client.infer(DIGITS[0])
        assert prediction.class_name == NAMES[LABELS[0]]
        (output,) = prediction.outputs
        assert (output.kind, output.last, output.label) == ("classes", "softmax", prediction.label)
        assert output.values.shape == output.shape == prediction.probabilities.shape
        assert prediction.probabilities.sum() == pytest.approx(1)
        assert prediction.probabilities.argmax() == prediction.label
        assert np.array_equal(output.finished, prediction.probabilities)
        known = prediction.logits != 0
        scales = prediction.values.reshape(-1)[known] / prediction.logits[known]
        assert np.allclose(scales, scales[0]) and scales[0] > 0
    with seco.Client(cluster.deployment) as client:
        prediction = client.infer(DIGITS[0])
        assert prediction.class_name is None and prediction.probabilities is None


def test_floats_become_the_values_that_the_deployment_says(cluster):
    with seco.Client(cluster.deployment.replace("[[model.outputs]]", QUANTISE, 1)) as client:
        expected = client.infer(DIGITS[0])
        for kind in (np.float64, np.float32, np.float16):
            reals = (DIGITS[0] / 255).astype(kind)
            # Half precision has eleven bits: enough for the nearest of 256 steps.
            assert np.array_equal(client.infer(reals).logits, expected.logits), kind
        assert not expected.outside_calibration
        reals = DIGITS[0] / 255
        reals.reshape(-1)[0] = 1.5
        assert client.infer(reals).outside_calibration
        assert [one.outside_calibration for one in client.infer_many([DIGITS[0], reals])] == [False, True]
        reals.reshape(-1)[0] = np.nan
        with pytest.raises(seco.InvalidConfiguration, match="is not a number") as told:
            client.infer(reals)
        assert told.value.code == 1
    with seco.Client(cluster.path) as client:
        assert np.array_equal(client.infer(DIGITS[0].astype(float)).logits, expected.logits)
        with pytest.raises(seco.InvalidConfiguration, match="no `quantise` of the model"):
            client.infer(DIGITS[0] / 255)


def test_wrong_shapes_are_refused_with_both_shapes(cluster):
    with seco.Client(cluster.path) as client:
        digit = DIGITS[0].reshape(28, 28)
        for good in (digit, digit[..., None], digit.reshape(-1), digit[None, None], digit.tolist(), digit.T.copy().T):
            assert client.infer(good).label == LABELS[0]
        for wrong in (digit[:, :-1], np.zeros((3, 28, 28), np.uint8)[:, :, :20], np.zeros(100, np.uint8), digit.reshape(14, 56)):
            with pytest.raises(seco.WrongInputSize, match=r"the model takes \(N, 1, 28, 28\)") as told:
                client.infer(wrong)
            assert (told.value.code, told.value.expected, told.value.got) == (2, 784, wrong.size)
            assert isinstance(told.value, ValueError)
        with pytest.raises(seco.WrongInputSize, match="infer_many"):
            client.infer(DIGITS[:2])
        for odd in (["a"] * 784, np.zeros(784, complex), [[1, 2], [3]], None, np.zeros((0, 1, 28, 28), np.uint8)):
            with pytest.raises(seco.InvalidConfiguration):
                client.infer(odd)
        assert client.infer(DIGITS[1]).label == LABELS[1]


def test_settings_and_the_deployment_are_checked(cluster, tmp_path):
    for wrong in ("nonsense\n", tmp_path / "missing.toml", tmp_path):
        with pytest.raises(seco.InvalidConfiguration):
            seco.Client(wrong)
    settings = [{"connect_timeout": 0}, {"connect_timeout": float("nan")}, {"request_timeout": 1e9}]
    settings += [{"transport": "udp"}, {"session_max_age_days": 0}, {"session_max_age_days": -1}]
    for setting in settings:
        with pytest.raises(seco.InvalidConfiguration):
            seco.Client(cluster.path, **setting)


def test_errors_have_the_stable_numbers():
    kinds = sorted(seco.SecoError.__subclasses__(), key=lambda kind: kind.code)
    assert [kind.code for kind in kinds] == list(range(1, 12))
    error = pickle.loads(pickle.dumps(seco.Network("no way")))
    assert (error.reason, error.code, str(error)) == ("no way", 3, "no way")


def test_progress_is_told_and_what_a_callback_raises_is_its_own_affair(cluster):
    with seco.Client(cluster.path) as client:
        seen, refused = [], []

        def tell(progress):
            seen.append(progress.state)
            # What is known without asking may be looked at.
            assert client.total_cost.bytes_up > 784
            try:
                client.infer(DIGITS[0])
            except seco.InvalidConfiguration as error:
                refused.append(error)
            raise RuntimeError("of the application")

        assert client.infer(DIGITS[0], tell).label == LABELS[0]
        assert seen[0] == "sent" and len(refused) == len(seen)


def test_what_leaves_the_device_is_kept_on_request_and_is_not_the_digit(cluster):
    with seco.Client(cluster.path, keep_sent=True, transport="tcp") as client:
        assert client.transport == "tcp"
        assert client.last_sent is None
        client.infer(DIGITS[0])
        first = client.last_sent
        client.infer(DIGITS[0])
        assert len(first) == 784 and first != DIGITS[0].tobytes() and first != client.last_sent


def test_a_private_request_sends_what_a_plain_one_sends(cluster):
    with seco.Client(cluster.path) as client:

        def bytes_up(call):
            sizes = []
            for _ in range(5):
                time.sleep(0.2)  # acknowledgements of the one before
                call()
                sizes.append(client.last_cost.bytes_up)
            return sorted(sizes)[2]

        private, plain = bytes_up(lambda: client.infer(DIGITS[0])), bytes_up(client.plain_request)
        print("bytes up:", private, "private,", plain, "plain")
        assert plain > 784 and private < plain * 1.2


def test_threads_share_a_client_and_requests_go_on_after_a_change_of_network(cluster):
    with seco.Client(cluster.path) as client:
        got = {}

        def ask(index):
            got[index] = client.infer(DIGITS[index]).label

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert [got[index] for index in range(6)] == LABELS[:6]
        client.network_changed()
        assert client.infer(DIGITS[4]).label == LABELS[4]


def test_a_client_that_was_closed_says_so(cluster):
    with seco.Client(cluster.path) as client:
        pass
    client.close()
    with pytest.raises(seco.Closed) as told:
        client.infer(DIGITS[0])
    assert told.value.code == 10


def test_a_session_in_a_file_is_taken_up_without_sealing(cluster, tmp_path):
    path = tmp_path / "session"
    up = []
    for _ in range(2):
        with seco.Client(cluster.path, path) as client:
            up.append(client.total_cost.bytes_up)
            assert client.infer(DIGITS[5]).label == LABELS[5]
    # Three sealed keys have 3.5 KB.
    assert up[0] - up[1] > 3000
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["session"]


def test_a_store_that_fails_is_an_error_and_one_that_recovers_is_used_again(cluster):
    class Store:
        broken, saved = True, None

        def load(self):
            if self.broken:
                raise RuntimeError("locked")
            return self.saved

        def save(self, session):
            self.saved = session

    store = Store()
    with pytest.raises(seco.Storage, match="locked") as told:
        seco.Client(cluster.path, store)
    assert told.value.code == 9
    store.broken = False
    with seco.Client(cluster.path, store) as client:
        assert client.infer(DIGITS[6]).label == LABELS[6]
    assert 0 < len(store.saved) < 512


def test_what_crashed_writers_left_is_removed_in_time(tmp_path):
    old = tmp_path / "session.01234567-89ab-cdef-0123-456789abcdef.new"
    kept = [tmp_path / "session.new", tmp_path / "session.11234567-89ab-cdef-0123-456789abcdef.new"]
    for file in [old, *kept]:
        file.touch()
    for file in [old, kept[0]]:
        os.utime(file, (time.time() - 3700,) * 2)
    store = seco.FileSessionStore(tmp_path / "session")
    assert store.load() is None
    store.save(b"one")
    assert store.load() == b"one"
    assert sorted(os.listdir(tmp_path)) == sorted(["session", *(file.name for file in kept)])


def test_a_token_is_asked_for(tmp_path):
    with Cluster("mlp", 2, guarded=True) as guarded:
        for token, problem in [(None, "missing"), ("seco_" + "0" * 48, "invalid")]:
            with pytest.raises(seco.TokenRefused) as told:
                seco.Client(guarded.path, token=token)
            assert (told.value.code, told.value.problem, told.value.retry_after) == (11, problem, 0)
        with pytest.raises(seco.InvalidConfiguration) as invalid:
            seco.Client(guarded.path, token="seco_" + "5" * 40)
        assert "555" not in str(invalid.value), "a secret is not shown"
        with seco.Client(guarded.path, token=guarded.token) as client:
            assert client.infer(SMALL[0]).logits.shape == (10,)


def test_what_a_client_does_is_told_to_a_logger(small, caplog):
    caplog.set_level(logging.DEBUG, logger="app.seco")
    with seco.Client(small.path, log="app.seco") as client:
        client.infer(SMALL[0])
        client.network_changed()
        told = [(record.levelname, record.seco_event) for record in caplog.records]
    assert told == [
        ("INFO", "connected"),
        ("INFO", "session_opened"),
        ("DEBUG", "answered"),
        ("DEBUG", "network_changed"),
    ]
    assert (caplog.records[-1].seco_event, caplog.records[-1].message) == ("closed", "closed")
    assert caplog.records[2].message.startswith("answered in ")


class Failing(logging.Handler):
    """A handler that raises, and before it does what it should not."""

    def __init__(self):
        super().__init__()
        self.client, self.refused = None, 0

    def emit(self, record):
        if self.client is not None:
            try:
                self.client.infer(SMALL[0])
            except seco.InvalidConfiguration:
                self.refused += 1
        raise RuntimeError("a full disk")


def test_what_a_handler_of_the_log_raises_harms_nothing(small):
    logger, handler = logging.Logger("app"), Failing()
    logger.addHandler(handler)
    with seco.Client(small.path, log=logger) as client:
        handler.client = client
        assert client.infer(SMALL[0]).logits.shape == (10,)
        assert handler.refused == 1, "a client cannot be called there"


def test_a_deployment_file_without_an_owner_has_no_update(small):
    for deployment in (small.path, small.deployment):
        with pytest.raises(seco.InvalidConfiguration, match="owner") as told:
            seco.fetch_deployment_update(deployment)
        assert told.value.code == 1
    for wrong in ({"connect_timeout": 0}, {"transport": "udp"}):
        with pytest.raises(seco.InvalidConfiguration):
            seco.fetch_deployment_update(small.path, **wrong)


def test_a_file_may_name_several_models(small):
    # The same model by two names, and with names of classes by the second.
    start, end = small.deployment.index("[model]"), small.deployment.index("[[servers]]")
    model = small.deployment[start:end].replace("[model.", "[models.")
    first, second = (model.replace("[model]", f'[[models]]\nname = "{name}"') for name in ("first", "second"))
    classes = f"classes = {NAMES!r}".replace("'", '"')
    second = second.replace("[[models.outputs]]", f"[[models.outputs]]\n{classes}")
    both = small.deployment[:start] + first + second + small.deployment[end:]
    both = both.replace("version = 3", "version = 5")
    answers = []
    for deployment, name in ((small.path, None), (both, "first"), (both, "second")):
        with seco.Client(deployment, model=name) as client:
            prediction = client.infer(SMALL[0])
            answers.append(prediction.logits.tolist())
            assert prediction.class_name == (NAMES[prediction.label] if name == "second" else None)
    assert all(answer == answers[0] for answer in answers)
    for deployment, name in ((both, None), (both, "third"), (both, ""), (both, 1), (small.path, "first")):
        with pytest.raises(seco.InvalidConfiguration, match="model") as told:
            seco.Client(deployment, model=name)
        assert told.value.code == 1
        assert deployment != both or name == 1 or "first, second" in str(told.value)


def test_servers_that_are_gone_are_an_error_in_time():
    with Cluster("mlp", 2) as short:
        limits = {"connect_timeout": 3, "request_timeout": 6}
        with seco.Client(short.deployment, **limits) as client:
            client.infer(SMALL[0])
            short.close()
            start = time.monotonic()
            with pytest.raises((seco.Network, seco.Timeout)) as told:
                client.infer(SMALL[0])
            assert told.value.code in (3, 4) and time.monotonic() - start < 20
        with pytest.raises((seco.Network, seco.Timeout)):
            seco.Client(short.deployment, **limits)


USES = {
    "infer": lambda client: client.infer(SMALL[0]),
    "plain_request": lambda client: client.plain_request(),
    "network_changed": lambda client: client.network_changed(),
    "close": lambda client: client.close(),
    **{
        name: lambda client, name=name: getattr(client, name)
        for name in ("input_shape", "transport", "last_cost", "total_cost", "last_sent")
    },
}


def _fails_in_a_fork(client, result):
    for name, use in USES.items():
        try:
            use(client)
            result.put((name, 0, "it worked"))
        except seco.SecoError as error:
            result.put((name, error.code, error.reason))


def test_a_forked_process_is_told_instead_of_hanging(small):
    with seco.Client(small.path) as client:
        fork = multiprocessing.get_context("fork")
        result = fork.Queue()
        process = fork.Process(target=_fails_in_a_fork, args=(client, result))
        process.start()
        told = [result.get(timeout=60) for _ in USES]
        process.join(60)
        assert [name for name, _, _ in told] == list(USES)
        assert all(code == 1 and "spawn" in reason for _, code, reason in told), told
        assert client.transport == "quic"
        assert client.infer(SMALL[0]).logits.shape == (10,)


def _used():
    """Resident bytes, open files, threads of this process."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def test_many_calls_keep_neither_memory_nor_files_nor_threads(small):
    private, plain = (2_000, 8_000) if os.environ.get("SECO_SLOW") else (400, 1_600)
    with seco.Client(small.path) as client:

        def calls(private, plain):
            for _ in range(private // 8):
                client.infer_many(SMALL[:8])
            for _ in range(plain // 2):
                client.probe(64, 64)
                with pytest.raises(seco.WrongInputSize):
                    client.infer(SMALL[0].reshape(-1)[1:])

        calls(private // 4, plain // 4)
        before, start = _used(), time.monotonic()
        calls(private, plain)
        after = _used()
        print(f"{private + plain} calls in {time.monotonic() - start:.1f} s: {before} to {after}")
        # A call that lost 4 KB would be seen in either number of calls.
        assert after[0] - before[0] < 4 << 20
        # One by one: of two pairs the first numbers alone may decide.
        assert after[1] <= before[1] + 2
        assert after[2] <= before[2]


def test_clients_that_come_and_go_keep_nothing(small):
    def one():
        with seco.Client(small.path) as client:
            client.probe(16, 16)

    for _ in range(3):
        one()
    before = _used()
    for _ in range(20):
        one()
    after = _used()
    assert after[1] <= before[1] + 2 and after[2] <= before[2]


ENDING = """
import sys, threading, time
import seco

loading = threading.Event()

class Slow:
    def load(self):
        loading.set()
        time.sleep(0.6)
    def save(self, session):
        pass

class Output:
    closed = False
    def flush(self, sleep=time.sleep):
        sleep(0.4)

threading.Thread(target=seco.Client, args=(sys.argv[1], Slow()), daemon=True).start()
loading.wait()
# Flushed once before the interpreter ends and once while it does: then `load` returns to it.
sys.stdout = Output()
"""


def test_a_process_ends_while_the_library_calls_it(cluster):
    ended = subprocess.run(
        [sys.executable, "-c", ENDING, str(cluster.path)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


CLOSED_LATE = """
import atexit, sys

# Registered before the package is imported, so it comes behind what the package does at the end.
atexit.register(lambda: client.close())
import seco

client = seco.Client(sys.argv[1])
"""


def test_a_client_may_be_closed_while_the_process_ends(cluster):
    ended = subprocess.run(
        [sys.executable, "-c", CLOSED_LATE, str(cluster.path)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
