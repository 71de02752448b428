"""Training: configuration, step, loop, checkpoints, logs."""
