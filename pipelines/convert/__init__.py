"""A job's shards, from options and plan to columns and crops: read, fit, cut; positions and motions in other frames."""
