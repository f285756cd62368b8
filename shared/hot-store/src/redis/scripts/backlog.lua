#!lua flags=allow-oom
-- The backlogs of tables. KEYS: header. ARGV: namespaces. Answers epoch and clock, then per table how many records are
-- dirty, their bytes, and the lowest version that the database may lack, or -1. Where there is none, the caller takes
-- the clock for the horizon: it is raised to the store's time first, so that a quiet table's horizon goes on.
local epoch, _, clock = open_shard(KEYS[1])
if not epoch then return CLOSED end
local answer, idle = {epoch, 0}, false
for i = 1, #ARGV do
  local key = behind_key(ARGV[i])
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  answer[#answer + 1] = redis.call('ZCARD', key)
  answer[#answer + 1] = math.max(tonumber(redis.call('HGET', BASE .. 'n', ARGV[i]) or 0), 0)
  answer[#answer + 1] = tonumber(oldest or -1)
  idle = idle or not oldest
end
if idle then
  local time = redis.call('TIME')
  clock = math.max(clock, time[1] * 1000000 + time[2])
  redis.call('HSET', KEYS[1], 'clock', string.format('%.0f', clock))
end
answer[2] = clock
return answer
