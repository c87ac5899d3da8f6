-- Whether Redis takes writes now, for want of memory too: a key is written and deleted, and nobody ever sees it.
-- Returns    1
call('SET', PROBE, 1)
call('DEL', PROBE)
return 1
