"""One file an algorithm: `algorithm.type: NAME` is the config struct in `learners/algorithms/NAME.py`."""
