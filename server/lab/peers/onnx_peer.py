"""onnxruntime in clear: a server that has the network and sees the input, and a user who asks it over TCP.

Called by `run`: onnx_peer.py SYSTEM OPTIONS.
"""

import socket

import numpy as np

import common

NOTES = [
    "No privacy: the server sees the input. The user sends it as numbers of 32 bits over plain TCP, without TLS.",
    "The user's process has Python's interpreter and the test's inputs in memory.",
]


def party(role, network, job):
    if role == "user":
        server = common.connect(job["ports"][0])
        for request in range(-1, job["requests"]):
            common.send(server, network.question(job, request).tobytes())
            yield np.frombuffer(common.receive(server), np.float32)
        return
    with socket.create_server(("127.0.0.1", job["ports"][0])) as listener:
        user = common.accept(listener)
    for _ in range(-1, job["requests"]):
        x = np.frombuffer(common.receive(user), np.float32).reshape(network.inputs[:1].shape)
        yield common.send(user, network.clear(x).tobytes())


if __name__ == "__main__":
    common.main(party, ["user", "server"], ("onnxruntime", "numpy"), NOTES)
