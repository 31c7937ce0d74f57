"""People streamed from shards, augmented and batched."""
