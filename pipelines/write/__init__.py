"""What a run leaves: shards, the data set, the record of the run and its progress."""
