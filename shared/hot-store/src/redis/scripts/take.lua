#!lua flags=allow-oom
-- Takes from a budget: GCRA without burst. KEYS: the budget. ARGV: rows, rows per second. Answers 0 (granted) or the
-- microseconds to wait. Kept are the moment and the size of the last grant rather than the next moment allowed, so a
-- changed limit holds at once, and a clock that stepped back costs one interval at most. A budget that this
-- incarnation does not know begins as if a batch had just been granted: what was granted before may have been lost.
local rows, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local fields = redis.call('HMGET', KEYS[1], 'at', 'rows', 'inc')
local live = live_incarnation()
local at, last = tonumber(fields[1] or now), tonumber(fields[2] or rows)
if fields[3] ~= live or at > now then
  at, last = now, math.max(last, rows)
  redis.call('HSET', KEYS[1], 'at', string.format('%.0f', at), 'rows', last, 'inc', live)
end
local wait = math.ceil(at + last * 1000000 / rate - now)
if wait > 0 then return math.min(wait, 3600000000) end
redis.call('HSET', KEYS[1], 'at', string.format('%.0f', now), 'rows', rows, 'inc', live)
return 0
