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


class Store:
    """Counts the sessions that are opened."""

    def __init__(self):
        self.opened = 0

    def load(self):
        return None

    def save(self, session):
        self.opened += 1


def test_tasks_that_connect_at_a_time_get_one_connection(cluster):
    async def run():
        store = Store()
        client = seco.aio.Client(cluster.path, store)
        cancelled, *others = [asyncio.ensure_future(client.connect()) for _ in range(4)]
        await asyncio.sleep(0)
        cancelled.cancel()
        assert all(got is client for got in await asyncio.gather(*others))
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert store.opened == 1
        assert (await client.infer(DIGITS[4])).label == LABELS[4]
        await client.close()

    asyncio.run(run())


def test_a_deployment_file_without_an_owner_has_no_update(cluster):
    with pytest.raises(seco.InvalidConfiguration, match="owner") as told:
        asyncio.run(seco.aio.fetch_deployment_update(cluster.path))
    assert told.value.code == 1
