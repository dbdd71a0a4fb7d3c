"""Losses as pure functions of tensors; time is in the name: `_tm1` where the action was taken, `_t` where it led."""
