"""Which label rows and images become which shard; no pixel moves."""
