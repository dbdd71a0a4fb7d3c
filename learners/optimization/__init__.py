"""From gradients to steps: optimizers, schedules, targets, and the way back from a step that was not finite."""
