"""The providers: one file each, on one contract, listed in `registry.py`.

A provider speaks HTTP through an `Exchange` and returns what `contract.py` names. It knows neither the store, nor
Celery, nor another provider; whoever needs one asks the registry.
"""
