"""The client for asyncio."""

import asyncio

import pytest

import seco
import seco.aio
from cluster import DIGITS, LABELS


def test_digits_are_asked_side_by_side(cluster):
    async def run():
        async with seco.aio.Client(cluster.path) as client:
            assert client.input_shape == (1, 28, 28)
            answers = await asyncio.gather(*(client.infer(digit) for digit in DIGITS[:6]))
            assert [answer.label for answer in answers] == LABELS[:6]
            assert [answer.label for answer in await client.infer_many(DIGITS[:4])] == LABELS[:4]
            await client.plain_request()
            assert client.last_cost.bytes_up > 784
        with pytest.raises(seco.Closed):
            await client.infer(DIGITS[0])

    asyncio.run(run())


def test_a_cancelled_call_ends_at_once_and_the_next_one_works(cluster):
    async def run():
        async with seco.aio.Client(cluster.path) as client:
            sent = asyncio.Event()

            def tell(progress):
                if progress.state == "sent":
                    sent.set()

            call = asyncio.ensure_future(client.infer(DIGITS[0], tell))
            await sent.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.infer_many(DIGITS.repeat(10, axis=0)), 0.01)
            assert (await client.infer(DIGITS[1])).label == LABELS[1]

    asyncio.run(run())


def test_a_client_lives_in_one_loop_after_the_other_and_says_when_it_is_not_connected(cluster):
    client = seco.aio.Client(cluster.path)

    async def early():
        with pytest.raises(seco.Closed, match="connect"):
            await client.infer(DIGITS[0])
        await client.connect()
        return (await client.infer(DIGITS[2])).label

    async def later():
        label = (await client.infer(DIGITS[3])).label
        await client.close()
        return label

    assert asyncio.run(early()) == LABELS[2]
    assert asyncio.run(later()) == LABELS[3]
