"""What the training loop calls: gradients, optimiser, checkpoints, tracking."""
