"""`headrace bench scaling`: a model of actors, shards, learner and weights in time, checked against real runs."""
