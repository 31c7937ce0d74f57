"""From label files and images to HMR-SKEL shards."""
