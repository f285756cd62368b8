#!lua flags=allow-oom
-- Sets of which tables a shard takes no writes, open or not, unless that was set by a later wish. KEYS: header. ARGV: the
-- wish's number, the tables (halts.rs). Answers what is in force.
local fields = redis.call('HMGET', KEYS[1], 'hrev', 'halt')
local revision, tables = tonumber(fields[1] or 0), fields[2] or ''
if tonumber(ARGV[1]) >= revision then
  revision, tables = tonumber(ARGV[1]), ARGV[2]
  redis.call('HSET', KEYS[1], 'hrev', string.format('%.0f', revision))
  if tables == '' then redis.call('HDEL', KEYS[1], 'halt') else redis.call('HSET', KEYS[1], 'halt', tables) end
end
return {revision, tables}
