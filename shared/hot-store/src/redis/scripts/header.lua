#!lua flags=no-writes
-- The state of a shard, open or not. KEYS: header, dirty, unqueued. Answers: 1 if open, epoch, clock, how many are
-- dirty, how many unqueued, the oldest dirty version or -1, which
-- tables it takes no writes of (halt.lua).
local fields = redis.call('HMGET', KEYS[1], 'inc', 'epoch', 'clock', 'hrev', 'halt')
local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {
  fields[1] == live_incarnation() and 1 or 0,
  tonumber(fields[2] or 0),
  tonumber(fields[3] or 0),
  redis.call('ZCARD', KEYS[2]),
  redis.call('ZCARD', KEYS[3]),
  tonumber(oldest[2] or -1),
  tonumber(fields[4] or 0),
  fields[5] or '',
}
