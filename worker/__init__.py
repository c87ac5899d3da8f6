"""The engine: job model, store, providers, Celery app and clock, and its edges (client, command line, sandbox).

It names tasks by their wire names only and never imports them.
"""
