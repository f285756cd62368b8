#!lua flags=no-writes
-- Lists dirty records in the order of their versions. KEYS: header, the set. ARGV: what every record's key begins
-- with, the version after which to begin, how many. Answers the epoch, the version up to which it has listed (-1:
-- nothing is there), then name and value of each. The records' keys can't be named beforehand, but they carry the same
-- hash tag as the set.
local epoch = open_shard(KEYS[1])
if not epoch then return CLOSED end
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
if #found == 0 then return {epoch, -1} end
local names, last = {}, found[#found]
for i = 1, #found, 2 do
  if found[i + 1] ~= last then names[#names + 1] = found[i] end
end
-- Those of the last version are not parted: the next page begins above it.
local of_last = redis.call('ZRANGEBYSCORE', KEYS[2], last, last)
for i = 1, #of_last do names[#names + 1] = of_last[i] end
local keys = {}
for i = 1, #names do keys[i] = ARGV[1] .. names[i] end
local values, answer = redis.call('MGET', unpack(keys)), {epoch, tonumber(last)}
for i = 1, #names do
  answer[#answer + 1] = names[i]
  answer[#answer + 1] = values[i]
end
return answer
