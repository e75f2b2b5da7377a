"""CrypTen: two parties, of which one is the user.

Called by `run`: crypten_peer.py SYSTEM OPTIONS.
"""

import os

import common

NOTES = [
    "Two parties: the server shares the weights, the user shares the input and is the other party; the answer is opened to "
    "the user alone.",
    "The multiplication triples are made by the first party, the server, alone (TFP, CrypTen's default): it is trusted, as no "
    "server of SECO is, and what honest preprocessing would cost is missing from the figures.",
    "CrypTen separates no preprocessing here: all is paid online. The set-up includes connections, sharing the weights, and "
    "one whole prediction.",
    "Fixed point of 16 fraction bits with local truncation: answers are near the network's, not equal bit for bit.",
]


class Ops:
    """Steps on CrypTen's tensors."""

    @staticmethod
    def conv(x, weights, bias, stride, pad):
        return x.conv2d(weights, stride=stride, padding=pad) + bias.reshape(1, -1, 1, 1)

    @staticmethod
    def gemm(x, weights, bias):
        return x.matmul(weights.t()) + bias

    @staticmethod
    def relu(x):
        return x.relu()

    @staticmethod
    def pad_channels(x, by):
        return x.pad((0, 0, 0, 0, by, by))


def party(role, network, job):
    rank = int(role == "user")
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "RENDEZVOUS": f"tcp://127.0.0.1:{job['ports'][0]}",
        "DISTRIBUTED_BACKEND": "gloo",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    import crypten
    import torch

    # One thread for each party: there are two cores.
    torch.set_num_threads(1)
    crypten.init()

    def shared(value, owner):
        # Who does not own it knows its shape.
        value = torch.from_numpy(value.copy())
        return crypten.cryptensor(value if rank == owner else torch.zeros_like(value), src=owner)

    weights = {name: shared(network.weights[name], 0) for name in sorted(network.weights)}
    with crypten.no_grad():
        for request in range(-1, job["requests"]):
            x = shared(network.question(job, request), 1)
            logits = common.answer(network, Ops, x, weights).get_plain_text(dst=1)
            yield logits.numpy() if role == "user" else None


if __name__ == "__main__":
    common.main(party, ["server", "user"], ("crypten", "torch", "numpy", "onnxruntime"), NOTES)
