"""Processes on this machine: the embedded Redis, and children that end when we end."""
