"""One shard from its plan to its columns and crops: read, fit, cut; positions and motions in other frames."""
