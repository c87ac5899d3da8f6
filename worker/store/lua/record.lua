-- Write outcomes. Every change of a job's or a delivery's state is made here, but two: the enqueue script writes a job's
-- first state, and the claim script makes a submit uncertain whose lease ended after its intent.
-- Uses       verbs, due_now, flush, write_act and admit_next, of the parts in record/
-- Arguments  outcomes (array of the structs of worker/model/outcomes.py; a field that is absent has its default),
--            retention_ms (that a closed job is kept), audit_ms (that acts of persons are kept),
--            per_tenant and per_host (deliveries admitted at once)
-- Returns    {array of codes (store/codes.py), array of lanes with work due now}
-- States     queued -> waiting | uncertain | ends;  uncertain -> queued | waiting | ends;  waiting -> ends;
--            failed -> waiting;  expired -> waiting;  cancelled -> waiting
local codes, lanes = {}, {}
for i, outcome in ipairs(arguments.outcomes) do
  codes[i] = verbs[outcome.verb](outcome)
  if outcome.act and codes[i] > 0 then
    write_act(outcome.act, outcome.work_id and (job_of(outcome.work_id) or outcome.work_id))
  end
end
flush()
admit_next()
write_tallies()
for lane in pairs(due_now) do lanes[#lanes + 1] = lane end
return cmsgpack.pack({codes, lanes})
