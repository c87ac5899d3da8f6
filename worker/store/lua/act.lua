-- Write an act of a person that changes nothing in the store, or is not made by the record script.
-- Uses       write_act (record/acts.lua)
-- Arguments  act (model.acts.NewAct), audit_ms (that acts are kept)
-- Returns    1
write_act(arguments.act)
return 1
