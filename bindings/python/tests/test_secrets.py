"""Tokens and inputs are in nothing that an application prints or logs."""

import asyncio
import logging
import traceback

import numpy as np
import pytest

import seco
import seco.aio
from cluster import SMALL, Cluster

MARK = "5ec7e7ab"
TOKENS = {
    "unknown": "seco_" + MARK * 6,
    "short": "seco_" + MARK * 5,
    "no text": ("seco_" + MARK * 6).encode(),
    "not ASCII": "seco_" + MARK * 5 + "\u00e9" * 8,
    "half a character": "seco_" + MARK * 5 + "\udc80" * 8,
}
NUMBER = 7351.8125
INPUTS = {
    "text": [MARK] * 64,
    "bytes": (MARK * 9).encode(),
    "a dictionary": {MARK: MARK},
    "complex": np.full(64, complex(NUMBER)),
    "out of range": np.full(64, NUMBER),
    "too many": np.full(65, NUMBER),
    "ragged": [[NUMBER], [NUMBER, NUMBER]],
}


def shown(error):
    """All that a program could print of an error, and of those that it came from."""
    seen, texts = set(), ["".join(traceback.format_exception(type(error), error, error.__traceback__))]
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        texts += [str(error), repr(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.fixture
def printed(caplog, capfd):
    """What was logged or written so far."""
    caplog.set_level(logging.DEBUG)

    def read():
        out, err = capfd.readouterr()
        logged = [f"{record.getMessage()} {record.args!r} {record.exc_text}" for record in caplog.records]
        return "\n".join([out, err, caplog.text, *logged])

    return read


@pytest.fixture(scope="module")
def guarded():
    with Cluster("mlp", 2, guarded=True) as running:
        yield running


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_is_not_taken_is_not_shown(kind, guarded, printed):
    async def run():
        await seco.aio.Client(guarded.path, token=TOKENS[kind]).connect()

    for connect in (lambda: asyncio.run(run(), debug=True), lambda: seco.Client(guarded.path, token=TOKENS[kind])):
        with pytest.raises(seco.SecoError) as told:
            connect()
        assert told.value.code == (11 if kind == "unknown" else 1)
        assert MARK not in shown(told.value)
    assert MARK not in printed()


def test_a_token_that_is_taken_is_not_shown(guarded, printed):
    async def run():
        client = seco.aio.Client(guarded.path, token=guarded.token)
        assert guarded.token not in f"{client} {client!r} {client._config} {client._config!r}"
        async with client:
            await client.infer(SMALL[0])
            texts = [repr(client), str(client), repr(vars(client))]
            assert not any(guarded.token in text for text in texts), "it is not kept either"

    asyncio.run(run(), debug=True)
    assert guarded.token not in printed()


@pytest.mark.parametrize("kind", INPUTS)
def test_an_input_that_is_not_taken_is_not_shown(kind, small, printed):
    marks = (MARK, str(NUMBER), str(int(NUMBER)))

    def hidden(text):
        return not any(mark in text for mark in marks)

    async def run():
        async with seco.aio.Client(small.path) as client:
            for call in (client.infer(INPUTS[kind]), client.infer_many([SMALL[0], INPUTS[kind]])):
                with pytest.raises(seco.SecoError) as told:
                    await call
                assert told.value.code in (1, 2) and hidden(shown(told.value))
            assert hidden(repr(client)) and hidden(repr(vars(client)))

    asyncio.run(run(), debug=True)
    with seco.Client(small.path) as client:
        with pytest.raises(seco.SecoError) as told:
            client.infer(INPUTS[kind])
        assert hidden(shown(told.value))
    assert hidden(printed())
