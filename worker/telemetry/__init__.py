"""The counts of a process, and its traces."""
