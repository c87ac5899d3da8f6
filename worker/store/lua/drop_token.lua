-- Forget an access token that was refused, unless somebody has renewed it meanwhile.
-- Arguments  name, token (the refused one)
-- Returns    1 forgotten, 0 another one stands there
local key = TOKEN .. arguments.name
if call('GET', key) == arguments.token then return call('DEL', key) end
return 0
