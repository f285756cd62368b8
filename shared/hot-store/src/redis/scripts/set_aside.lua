#!lua flags=allow-oom
-- What was dirty when it was discarded. KEYS: header, aside. ARGV: token, what every record's key begins with, how many
-- to pass over, how many to look at, after how many bytes to stop. Answers 1 if no more are there, then name, lowest
-- version that the database may lack, and value of each.
local fields = redis.call('HMGET', KEYS[1], 'otok', 'oinc', 'oepoch', 'min')
if fields[1] ~= ARGV[1] or fields[2] ~= live_incarnation() or not fields[3] then return SUPERSEDED end
local lowest, skip, limit, most = tonumber(fields[4] or 0), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local found = redis.call('ZRANGE', KEYS[2], skip, skip + limit - 1, 'WITHSCORES')
local answer, gone, bytes, listed = {0}, {}, 0, 0
for i = 1, #found, 2 do
  if bytes >= most then break end
  local value = redis.call('GET', ARGV[2] .. found[i]) or ''
  local kind = slot(value, 0, lowest)
  if value == '' or kind and kind ~= 'X' then
    gone[#gone + 1] = found[i] -- something stands in its place by now, or somebody else has deleted it
  else
    bytes = bytes + #value
    listed = listed + 1
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = tonumber(found[i + 1])
    answer[#answer + 1] = value
  end
end
call_with('ZREM', KEYS[2], gone)
if skip + listed >= redis.call('ZCARD', KEYS[2]) then answer[1] = 1 end
return answer
