"""RecSim's interest evolution, one user after another, random slates of 3 out of 20: prints steps a second as JSON.

    python3 -m venv peers/recsim
    peers/recsim/bin/pip install --no-deps recsim==0.2.4 gym==0.26.2 gym-notices gin-config absl-py numpy==1.26.4 \
        cloudpickle scipy six

Its users need neither TensorFlow nor Dopamine, which its agents import: empty modules stand for them.
"""

from __future__ import annotations

import json
import random
import sys
import time
from importlib.metadata import version
from unittest.mock import MagicMock

import gin

for name in ("gin.tf", "tensorflow", "tensorflow.compat", "tensorflow.compat.v1", "dopamine"):
    sys.modules[name] = MagicMock()
for name in ("agents", "agents.dqn", "agents.dqn.dqn_agent", "discrete_domains"):
    sys.modules[f"dopamine.{name}"] = MagicMock()
sys.modules["gin.tf"] = gin

from recsim.environments import interest_evolution  # noqa: E402

env = interest_evolution.create_environment(
    {"num_candidates": 20, "slate_size": 3, "resample_documents": True, "seed": 0}
)
env.reset()
steps, begin = 0, time.process_time()
while (spent := time.process_time() - begin) < float(sys.argv[1]):
    if env.step(random.sample(range(20), 3))[2]:
        env.reset()
    steps += 1
print(json.dumps({"version": version("recsim"), "steps_per_second": steps / spent}))
