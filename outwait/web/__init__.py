"""The web edge of one process: the HTTP API, the pages, providers' webhooks, health and metrics."""
