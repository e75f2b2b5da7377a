"""The cases of all languages, against the fakes and against real servers."""

import asyncio
import json

import numpy as np
import pytest

import seco
import seco.testing
from cluster import DIGITS, ROOT

CASES = json.loads((ROOT / "bindings" / "cases.json").read_text())["cases"]
KINDS = {kind.code: kind for kind in seco.SecoError.__subclasses__()}


def fields(entry, *known):
    """What is not known is a mistake, in this file or in that one."""
    assert not set(entry) - set(known), f"unknown in {entry}: {set(entry) - set(known)}"


def details(entry):
    told = {name: entry[name] for name in ("expected", "got", "problem") if name in entry}
    if "retry_after_ms" in entry:
        told["retry_after"] = entry["retry_after_ms"] / 1000
    if "retry_after_s" in entry:
        told["retry_after"] = float(entry["retry_after_s"])
    return told


def progress(text):
    state, *numbers = text.split()
    numbers = [int(number) for number in numbers]
    if state == "queued":
        position, wait = numbers
        return seco.Progress(state, position, wait / 1000)
    if state == "waiting":
        (server,) = numbers
        return seco.Progress(state, server=server)
    assert state in ("sent", "running") and not numbers, text
    return seco.Progress(state)


ERROR = ("error", "expected", "got", "problem", "retry_after_ms", "retry_after_s")


def reply(entry):
    fields(entry, "label", "delay_ms", "progress", "cost", *ERROR)
    given = {}
    if "error" in entry:
        given["error"] = seco.testing.failure(KINDS[entry["error"]], **details(entry))
    else:
        given["label"] = entry["label"]
    if "progress" in entry:
        given["progress"] = [progress(text) for text in entry["progress"]]
    if "cost" in entry:
        given["cost"] = seco.Cost(cpu_us=None, **entry["cost"])
    return seco.testing.Reply(delay=entry.get("delay_ms", 0) / 1000, **given)


def given(entry):
    return DIGITS[entry["digit"]] if "digit" in entry else np.zeros(entry["length"], np.uint8)


def costs(entry, cost):
    fields(entry, "call", "is", "at_least")
    assert ("is" in entry) != ("at_least" in entry), entry
    for name, number in entry.get("is", {}).items():
        assert getattr(cost, name) == number, (entry, cost)
    for name, number in entry.get("at_least", {}).items():
        assert getattr(cost, name) >= number, (entry, cost)


async def run(client, calls, told):
    """Runs `calls`; `told(call, …)` awaits what is called."""
    for entry in calls:
        call, seen = entry["call"], []
        try:
            if call == "infer":
                fields(entry, "call", "digit", "length", "label", "progress", "progress_begins", *ERROR)
                prediction = await told(client.infer, given(entry), seen.append)
                assert prediction.label == entry.get("label") == prediction.outputs[0].label, entry
                assert prediction.logits.argmax() == prediction.label and prediction.logits.shape == (10,)
            elif call == "infer_reals":
                fields(entry, "call", "length", "fill", "label", *ERROR)
                real = {"nan": np.nan, "infinity": np.inf}[entry["fill"]] if "fill" in entry else 0
                prediction = await told(client.infer, np.full(entry["length"], real, np.float32))
                assert prediction.label == entry.get("label"), entry
            elif call == "infer_many":
                fields(entry, "call", "digits", "labels", *ERROR)
                predictions = await told(client.infer_many, [DIGITS[digit] for digit in entry["digits"]])
                assert [one.label for one in predictions] == entry.get("labels"), entry
            elif call == "probe":
                fields(entry, "call", "up", "down", *ERROR)
                await told(client.probe, entry["up"], entry["down"])
                assert "error" not in entry, entry
            elif call == "plain_request":
                fields(entry, "call")
                await told(client.plain_request)
            elif call == "close":
                fields(entry, "call")
                await told(client.close)
            elif call == "cancel":
                fields(entry, "call", "digit")
                sent = asyncio.Event()
                task = asyncio.ensure_future(client.infer(given(entry), lambda _: sent.set()))
                await asyncio.wait_for(sent.wait(), 60)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            elif call == "close_during":
                fields(entry, "call", "digit", *ERROR)
                loop, sent = asyncio.get_running_loop(), asyncio.Event()
                under_way = asyncio.ensure_future(
                    told(client.infer, given(entry), lambda _: loop.call_soon_threadsafe(sent.set))
                )
                await asyncio.wait_for(sent.wait(), 60)
                await told(client.close)
                await under_way
                raise AssertionError(entry)
            elif call == "model":
                fields(entry, "call", "input_len", "input_bits", "values")
                # Arrays have values; how many bytes each is the library's business.
                each = 2 if entry.get("input_bits", 8) > 8 else 1
                assert int(np.prod(client.input_shape)) * each == entry["input_len"]
                assert entry["values"] == 10
            elif call == "transport":
                fields(entry, "call", "is")
                assert client.transport == entry["is"]
            elif call == "last_cost":
                # A real one's is that of the last request, which is none at first.
                costs(entry, client.last_cost)
            elif call == "total_cost":
                costs(entry, client.total_cost)
            elif call == "last_sent":
                fields(entry, "call", "length")
                sent = client.last_sent
                assert (None if sent is None else len(sent)) == entry["length"], entry
                assert sent is None or sent != DIGITS[14].tobytes()
            elif call == "network_changed":
                fields(entry, "call")
                client.network_changed()
            else:
                pytest.fail(f"an unknown call: {entry}")
        except seco.SecoError as error:
            assert error.code == entry.get("error"), (entry, error)
            assert error.reason
            for name, value in details(entry).items():
                assert getattr(error, name) == value, (entry, error)
        if "progress" in entry:
            assert seen == [progress(text) for text in entry["progress"]], entry
        for index, text in enumerate(entry.get("progress_begins", [])):
            assert seen[index] == progress(text), entry


async def direct(call, *arguments):
    return await call(*arguments)


async def on_a_thread(call, *arguments):
    return await asyncio.get_running_loop().run_in_executor(None, lambda: call(*arguments))


def cases(real):
    for case in CASES:
        fields(case, "name", "real", "input_bits", "keep_sent", "replies", "calls")
        if case["real"] or not real:
            yield pytest.param(case, id=case["name"])


def cancels(case):
    return any(call["call"] == "cancel" for call in case["calls"])


@pytest.mark.parametrize("case", list(cases(real=False)))
def test_the_fakes(case):
    script, bits = [reply(entry) for entry in case["replies"]], case.get("input_bits", 8)
    model = {"keep_sent": case.get("keep_sent", False), "input_bits": bits, "input_shape": (1, 28, 14 if bits > 8 else 28)}
    asyncio.run(run(seco.testing.FakeAsyncClient(script, **model), case["calls"], direct))
    # Nobody can cancel a call that blocks.
    if not cancels(case):
        client: seco.AnyClient = seco.testing.FakeClient(script, **model)
        asyncio.run(run(client, case["calls"], on_a_thread))


@pytest.mark.parametrize("case", list(cases(real=True)))
def test_real_servers(case, cluster):
    async def both():
        keep = case.get("keep_sent", False)
        async with seco.aio.Client(cluster.path, keep_sent=keep) as client:
            await run(client, case["calls"], direct)
        if not cancels(case):
            client = await on_a_thread(lambda: seco.Client(cluster.path, keep_sent=keep))
            await run(client, case["calls"], on_a_thread)
            await on_a_thread(client.close)

    asyncio.run(both())


def test_a_fake_is_read_as_a_model_with_names():
    client = seco.testing.FakeClient([seco.testing.Reply(logits=[1, 9])], input_shape=(3,), values=2, classes=["no", "yes"])
    prediction = client.infer([0.5, 1, 2])
    assert (prediction.label, prediction.class_name) == (1, "yes")
    with pytest.raises(seco.InvalidConfiguration):
        client.infer([0.5, 1, np.nan])
    with pytest.raises(TypeError, match="retry_after"):
        seco.testing.failure(seco.Refused, retry_after=1)
