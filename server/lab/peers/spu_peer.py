"""SPU: Cheetah with the user as one of two parties, and SEMI2K with three servers and a user who shares the input.

Called by `run`: spu_peer.py SYSTEM OPTIONS.
"""

import pickle
import socket
import sys

import numpy as np

import common

NOTES = {
    "spu-cheetah": [
        "Cheetah, two parties: the server holds the weights in clear, the user holds the input in clear and is the other "
        "party; the answer is opened to the user alone. Ring of 64 bits, SPU's own fraction bits.",
    ],
    "spu-semi2k": [
        "SEMI2K, three servers. Weights and input are shared among them; the user sends three shares and adds up three.",
        "The multiplication triples are made by the first server alone (TrustedFirstParty, SPU's default): it is trusted, "
        "as no server of SECO is, and what honest preprocessing would cost is missing from the figures.",
    ],
}
BOTH = [
    "SPU separates no preprocessing: all is paid online. The set-up includes compilation by each party, connections, keys, "
    "what it does with the weights once, and one whole prediction.",
    "Fixed point with SPU's probabilistic truncation: answers are near the network's, not equal bit for bit.",
]


class Ops:
    """Steps in JAX, which SPU compiles."""

    @staticmethod
    def conv(x, weights, bias, stride, pad):
        from jax import lax

        out = lax.conv_general_dilated(x, weights, (stride, stride), [(pad, pad)] * 2)
        return out + bias.reshape(1, -1, 1, 1)

    @staticmethod
    def gemm(x, weights, bias):
        return x @ weights.T + bias

    @staticmethod
    def relu(x):
        from jax import numpy

        return numpy.maximum(x, 0)

    @staticmethod
    def pad_channels(x, by):
        from jax import numpy

        return numpy.pad(x, ((0, 0), (by, by), (0, 0), (0, 0)))


def configuration(system):
    from spu import libspu

    kind = libspu.ProtocolKind.CHEETAH if system == "spu-cheetah" else libspu.ProtocolKind.SEMI2K
    config = libspu.RuntimeConfig(protocol=kind, field=libspu.FieldType.FM64)
    # What belongs to one party is not shared first: Cheetah as it was published.
    config.experimental_enable_colocated_optimization = system == "spu-cheetah"
    return config


def compiled(network, names):
    from spu import libspu
    from spu.utils import frontend

    def predict(x, *weights):
        return common.answer(network, Ops, x, dict(zip(names, weights)))

    inputs = [network.inputs[:1]] + [network.weights[name] for name in names]
    labels = [f"in{i}" for i in range(len(inputs))]
    secret = [libspu.Visibility.VIS_SECRET] * len(inputs)
    outputs = lambda out: [f"out{i}" for i in range(len(out))]  # noqa: E731
    return frontend.compile(frontend.Kind.JAX, predict, inputs, {}, labels, secret, outputs)[0]


def link(job, rank, world):
    from spu import libspu

    description = libspu.link.Desc()
    description.recv_timeout_ms = job["limit_s"] * 1000
    for other in range(world):
        description.add_party(f"p{other}", f"127.0.0.1:{job['ports'][other]}")
    return libspu.link.create_brpc(description, rank)


def cheetah(role, network, job):
    """The server has rank 0, the user rank 1."""
    import spu
    from spu import libspu

    rank, names = int(role == "user"), sorted(network.weights)
    config, context = configuration("spu-cheetah"), link(job, rank, 2)
    runtime, io = spu.Runtime(context, config), spu.Io(2, config)
    executable = compiled(network, names)

    def give(name, value, owner):
        # Who does not own it knows its shape.
        value = value if owner == rank else np.zeros_like(value)
        runtime.set_var(name, io.make_shares(value, libspu.Visibility.VIS_SECRET, owner)[rank])

    for number, name in enumerate(names):
        give(f"in{number + 1}", network.weights[name], 0)

    def predict(request):
        give("in0", network.question(job, request), 1)
        runtime.run(executable)
        share = runtime.get_var(executable.output_names[0])
        if role == "server":
            context.send(1, pickle.dumps(share))
            return None
        return io.reconstruct([pickle.loads(context.recv(0)), share])

    yield predict(-1)
    for request in range(job["requests"]):
        yield predict(request)


def semi2k(role, network, job):
    """Three servers, and a user who is no party of the computation."""
    import spu
    from spu import libspu

    config = configuration("spu-semi2k")
    io, secret = spu.Io(3, config), libspu.Visibility.VIS_SECRET
    if role == "user":
        servers = [common.connect(job["ports"][3 + rank]) for rank in range(3)]
        for request in range(-1, job["requests"]):
            for server, share in zip(servers, io.make_shares(network.question(job, request), secret)):
                common.send(server, pickle.dumps(share))
            yield io.reconstruct([pickle.loads(common.receive(server)) for server in servers])
        return
    rank = int(role[-1])
    with socket.create_server(("127.0.0.1", job["ports"][3 + rank])) as listener:
        names, context = sorted(network.weights), link(job, rank, 3)
        runtime = spu.Runtime(context, config)
        executable = compiled(network, names)
        # The first server has the weights at the start.
        for number, name in enumerate(names):
            if rank == 0:
                mine, *others = io.make_shares(network.weights[name], secret)
                for other, share in zip((1, 2), others):
                    context.send(other, pickle.dumps(share))
            else:
                mine = pickle.loads(context.recv(0))
            runtime.set_var(f"in{number + 1}", mine)
        user = common.accept(listener)
    for _ in range(-1, job["requests"]):
        runtime.set_var("in0", pickle.loads(common.receive(user)))
        runtime.run(executable)
        yield common.send(user, pickle.dumps(runtime.get_var(executable.output_names[0])))


PARTIES = {"spu-cheetah": (cheetah, ["user", "server"]), "spu-semi2k": (semi2k, ["user", "server0", "server1", "server2"])}


if __name__ == "__main__":
    system = sys.argv[1]
    party, roles = PARTIES[system]
    common.main(party, roles, ("spu", "jax", "numpy", "onnxruntime"), NOTES[system] + BOTH)
