"""What a process counts, and its traces."""
