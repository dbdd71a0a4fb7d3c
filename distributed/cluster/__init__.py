"""Cluster files: what a Ray cluster offers to a run, and the check that finds mistakes before machines cost money."""
