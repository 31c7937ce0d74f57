"""From shards and motions to the files of other programs."""
