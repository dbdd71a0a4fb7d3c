"""The same users as in `actors/envs`, one at a time and number by number: what our arrays are measured against.

Each module has `play(steps, seed)`: so many steps of random actions, one user after another, observed after every step
as plain ids; returns the mean reward of a step.
"""
