"""Training: losses, the loop, its records."""
