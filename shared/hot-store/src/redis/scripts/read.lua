#!lua flags=no-writes
-- Reads records. KEYS: header, dirty, then one per record. Answers the epoch, the lowest valid epoch of images, one
-- character per record (1: dirty), then the values.
local epoch, lowest = open_shard(KEYS[1])
if not epoch then return CLOSED end
local names = {}
for i = 3, #KEYS do names[#names + 1] = string.sub(KEYS[i], NAME_AT) end
if #names == 0 then return {epoch, lowest, ''} end
local values = redis.call('MGET', unpack(KEYS, 3))
local scores = redis.call('ZMSCORE', KEYS[2], unpack(names))
local answer, dirty = {epoch, lowest, ''}, {}
for i = 1, #names do
  answer[#answer + 1] = values[i]
  dirty[i] = scores[i] and '1' or '0'
end
answer[3] = table.concat(dirty)
return answer
