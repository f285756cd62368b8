#!lua flags=allow-oom
-- Forgets what the database has, or was said not to have, and leases in progress with it. KEYS: header, dirty, then one per
-- record. Answers one character per record: e forgotten, n nothing was there, u the database does not have it, p parked.
local epoch, lowest = open_shard(KEYS[1])
if not epoch then return CLOSED end
if #KEYS == 2 then return '' end
local names = {}
for i = 3, #KEYS do names[#names + 1] = string.sub(KEYS[i], NAME_AT) end
local scores = redis.call('ZMSCORE', KEYS[2], unpack(names))
local answer, removed = {}, 0
for i = 3, #KEYS do
  local kind, _, _, parked = slot(redis.call('GETRANGE', KEYS[i], 0, HEAD_END), epoch, lowest)
  local outcome = 'n'
  if parked then
    outcome = 'p'
  elseif scores[i - 2] or kind == 'X' then
    outcome = 'u' -- a value that nobody here has written stays too: nobody can say what would be lost with it
  elseif kind then
    redis.call('DEL', KEYS[i])
    if is_image(kind) then removed = removed + 1 end
    outcome = 'e'
  end
  answer[#answer + 1] = outcome
end
count_removed(removed)
return table.concat(answer)
