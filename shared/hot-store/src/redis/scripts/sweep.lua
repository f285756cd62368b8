#!lua flags=allow-oom
-- Frees images that an opening discarded. KEYS: header, discarded. ARGV: what every record's key begins with, how
-- many. Answers how many are left. Only void images go: one that was written since has a higher epoch.
local lowest = tonumber(redis.call('HGET', KEYS[1], 'min') or 0)
local popped = redis.call('ZPOPMIN', KEYS[2], ARGV[2])
for i = 1, #popped, 2 do
  local key = ARGV[1] .. popped[i]
  local head = redis.call('GETRANGE', key, 0, HEAD_END)
  local kind = string.sub(head, 1, 1)
  if is_image(PARKED[kind] or kind) and not slot(head, 0, lowest) then redis.call('UNLINK', key) end
end
return redis.call('ZCARD', KEYS[2])
