#!lua flags=no-writes
-- Lists dirty records in the order of their versions. KEYS: header, the set. ARGV: what every record's key begins
-- with, the version after which to begin, how many. Answers the epoch, then name and value of each. The records' keys
-- can't be named beforehand, but they carry the same hash tag as the set.
local epoch = open_shard(KEYS[1])
if not epoch then return CLOSED end
local names = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])
if #names == 0 then return {epoch} end
local keys = {}
for i = 1, #names do keys[i] = ARGV[1] .. names[i] end
local values, answer = redis.call('MGET', unpack(keys)), {epoch}
for i = 1, #names do
  answer[#answer + 1] = names[i]
  answer[#answer + 1] = values[i]
end
return answer
