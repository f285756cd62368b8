#!lua flags=no-writes
-- Reads records. KEYS: header, dirty, then one per record. ARGV: nothing; or how many bytes the values may have, and 1 if the
-- first is answered whatever it has. Answers the epoch, the lowest valid epoch of images, how many images were removed, one
-- character per record that is answered (1: dirty), then their values. Past the bytes it answers no further record.
local epoch, lowest, _, removed = open_shard(KEYS[1])
if not epoch then return CLOSED end
local names = {}
for i = 3, #KEYS do names[#names + 1] = string.sub(KEYS[i], NAME_AT) end
if #names == 0 then return {epoch, lowest, removed, ''} end
local values, count = nil, #names
if ARGV[1] then
  -- One by one: what would be too much is not even copied; its length costs nothing.
  values, count = {}, 0
  local left, always = tonumber(ARGV[1]), ARGV[2] == '1'
  for i = 1, #names do
    left = left - redis.call('STRLEN', KEYS[i + 2])
    if left < 0 and not (always and i == 1) then break end
    values[i], count = redis.call('GET', KEYS[i + 2]), i
  end
  if count == 0 then return {epoch, lowest, removed, ''} end
else
  values = redis.call('MGET', unpack(KEYS, 3))
end
local scores = redis.call('ZMSCORE', KEYS[2], unpack(names, 1, count))
local answer, dirty = {epoch, lowest, removed, ''}, {}
for i = 1, count do
  answer[#answer + 1] = values[i]
  dirty[i] = scores[i] and '1' or '0'
end
answer[4] = table.concat(dirty)
return answer
