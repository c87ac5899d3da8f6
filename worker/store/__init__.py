"""The store: the truth about every job, in Redis, behind Lua scripts.

Only this room speaks Redis. `store.py` has its one door, `Store`, which gives out the parts: what moves jobs
(`lanes.py`), what shows them (`reads.py`), and so on. `keys.py` lists every key, `fields.py` every field; `scripts.py`
puts the scripts together. Importing this package imports none of them.
"""
