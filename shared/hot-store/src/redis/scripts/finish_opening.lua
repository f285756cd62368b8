#!lua flags=allow-oom
-- Opens the shard. KEYS: header. ARGV: token, lowest clock, checkpoint.
local fields = redis.call('HMGET', KEYS[1], 'otok', 'oinc', 'oepoch', 'clock')
local live = live_incarnation()
if fields[1] ~= ARGV[1] or fields[2] ~= live or not fields[3] then return SUPERSEDED end
local clock = math.max(tonumber(fields[4] or 0), tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'inc', live, 'epoch', fields[3], 'clock', string.format('%.0f', clock), 'ckpt', ARGV[3])
redis.call('HDEL', KEYS[1], 'otok', 'oinc', 'oepoch', 'ostart', 'odisc')
return {ok = 'DONE'}
