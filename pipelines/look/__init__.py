"""Looking at finished shards: tables, verification, the report."""
