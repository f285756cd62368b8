#!lua flags=allow-oom
-- Fills a record that is under the caller's lease. KEYS: header, record. ARGV: token, kind (I, T, A; N gives the lease
-- back), version, payload, TTL in ms. Answers 1 if it did. Past 70 % of the memory the lease is given up and nothing is stored.
local epoch, lowest = open_shard(KEYS[1])
if not epoch then return CLOSED end
local value = redis.call('GETRANGE', KEYS[2], 0, HEAD_END + #ARGV[1] + 1)
if slot(value, epoch, lowest) ~= 'L' or string.sub(value, HEAD_END + 2) ~= ARGV[1] then return 0 end
if ARGV[2] == 'N' then
  redis.call('DEL', KEYS[2])
  return 1
end
if memory_in_use() > 0.7 then
  redis.call('DEL', KEYS[2])
  return 0
end
redis.call('SET', KEYS[2], head_of(ARGV[2], tonumber(ARGV[3]), epoch, 0) .. ARGV[4], 'PX', ARGV[5])
return 1
