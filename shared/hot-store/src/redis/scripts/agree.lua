#!lua flags=allow-oom
-- The limit that replicas agree on for a database. KEYS: where it lies. ARGV: what was read before (empty: none), and what
-- is to take its place (empty: nothing). Answers whether it did, the time in microseconds, and what holds now (empty:
-- none). What another incarnation of the store has left is none.
local live = live_incarnation()
local time = redis.call('TIME')
local stored = redis.call('HMGET', KEYS[1], 'inc', 'limit')
local current = stored[1] == live and stored[2] or ''
local changed = 0
if ARGV[2] ~= '' and current == ARGV[1] then
  redis.call('HSET', KEYS[1], 'inc', live, 'limit', ARGV[2])
  current, changed = ARGV[2], 1
end
return {changed, time[1] * 1000000 + time[2], current}
