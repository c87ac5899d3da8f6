-- Write outcomes: the only place where a job or a delivery changes state (worker/outcomes.py has the same closed set).
-- The verbs stand before this, from record/: jobs, webhooks, deliveries, governor.
-- ARGV     1 msgpack array of outcomes {verb, item, fence, …}, 2 ms that a closed job is kept
-- Returns  {array of codes, array of lanes with work due now}
--          codes: 1 written, 2 asked for (a cancel that waits for a submit's answer), 0 refused (stale fence, or the
--          job has ended), -1 unknown
-- States   queued -> waiting | uncertain | ends;  uncertain -> queued | waiting | ends;  waiting -> ends
local codes, lanes = {}, {}
for i, outcome in ipairs(cmsgpack.unpack(ARGV[1])) do
  codes[i] = verbs[outcome[1]](unpack(outcome, 2, table.maxn(outcome)))
end
flush()
write_tallies()
for lane in pairs(busy) do lanes[#lanes + 1] = lane end
return cmsgpack.pack({codes, lanes})
