"""Processes on this machine: the embedded Redis, and child processes that end when this process ends."""
