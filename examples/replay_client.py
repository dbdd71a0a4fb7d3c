"""Writes to and learns from the shard of examples/shard.yaml: python examples/replay_client.py 127.0.0.1:7400"""

import sys

import numpy as np

from replay_server import Field, RecordSpec, connect, importance_weights

SPEC = RecordSpec((Field("observation", "float32", (8,)), Field("action", "int64")), {"gamma": "0.99"})


def main(addresses: list[str]) -> None:
    rng = np.random.default_rng()
    with connect(addresses, spec=SPEC) as replay, replay.writer() as writer:
        for step in range(100):
            writer.append({"observation": rng.random((32, 8), np.float32), "action": rng.integers(4, size=32)})
            if (
                step >= 40
            ):  # the shard wants 1,000 records first, then 8 samples a record; writing alone would wait for that
                batch = replay.sample(256)
                weights = importance_weights(batch, beta=0.4)
                replay.update_priorities(batch.keys, weights * batch.columns["observation"][:, 0] + 1e-6)
        print(writer.flush(), replay.flush(), replay.stats().size)


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:7400"])
