"""Files and their formats: local or behind a URL, read by range and written whole or not at all."""
