"""What moves jobs: intake, clock, batches, recorder, and what a step shares."""
