-- The verb of answers that no job is there for.
-- Uses     verbs (record/jobs.lua)
-- Gives    verbs.orphaned
local ORPHANS_MAX = 1000

function verbs.orphaned(outcome)
  call('LPUSH', ORPHANS, string.format('%.0f ', now) .. outcome.record)
  call('LTRIM', ORPHANS, 0, ORPHANS_MAX - 1)
  tally('orphaned:' .. outcome.provider)
  return WRITTEN
end
