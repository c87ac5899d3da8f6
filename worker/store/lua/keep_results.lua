-- Keep results where producers' AsyncResult looks, and wake those who wait there (Celery's Redis backend does the same).
-- KEYS       2… the result keys
-- Arguments  expires_s (that each is kept), results (encoded, one a key)
-- Returns    how many
for i, result in ipairs(arguments.results) do
  call('SET', KEYS[i + 1], result, 'EX', arguments.expires_s)
  call('PUBLISH', KEYS[i + 1], result)
end
return #arguments.results
