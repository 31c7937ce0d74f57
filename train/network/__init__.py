"""The network, its camera and its checkpoints."""
