"""The engine: what a job is, how it is stored, how requests leave, and what moves it.

Rooms, from the top: app, engine, (celery, telemetry, local), providers, (store, net), model. Each imports
downwards only. It names tasks by their wire names and never imports them.
"""
