"""The store: the truth about every job, in Redis, behind Lua scripts.

Only this room speaks Redis. `lanes.py` moves jobs, `reads.py` shows them, `intake.py` takes producers' messages in,
`tokens.py` shares access tokens, `health.py` says whether this Redis can be trusted.
"""
