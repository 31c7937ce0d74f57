"""The console scripts and the options of every command."""
