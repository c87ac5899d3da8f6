"""What producers and people do with jobs: enqueue, look, wait, decide; over Redis or over HTTP, async or sync."""
