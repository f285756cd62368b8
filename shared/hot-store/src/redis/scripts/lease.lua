#!lua flags=allow-oom
-- Asks for the right to fill a record. KEYS: header, dirty, record. ARGV: token, TTL in ms. Answers GRANTED, or what
-- read.lua answers. It may exceed the memory limit: reads go on while the store is full, and fill.lua takes the lease
-- away again.
local epoch, lowest = open_shard(KEYS[1])
if not epoch then return CLOSED end
local value = redis.call('GET', KEYS[3])
if slot(value, epoch, lowest) then
  return {epoch, lowest, redis.call('ZSCORE', KEYS[2], string.sub(KEYS[3], NAME_AT)) and '1' or '0', value}
end
redis.call('SET', KEYS[3], head_of('L', 0, epoch, 0) .. ARGV[1], 'PX', ARGV[2])
return {ok = 'GRANTED'}
