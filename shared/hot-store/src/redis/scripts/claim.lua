#!lua flags=allow-oom
-- Takes a closed shard over. KEYS: header. ARGV: the opener's token. Answers OPEN, or: epoch, checkpoint, start, and
-- whether it discards. A start that was stored under another incarnation is forgotten. The epoch of whoever was here
-- before goes in any case: nobody restores or finishes who has not begun.
local fields = redis.call('HMGET', KEYS[1], 'inc', 'epoch', 'ckpt', 'oinc', 'ostart', 'odisc')
local live = live_incarnation()
if fields[1] == live then return {ok = 'OPEN'} end
local start, discard = fields[5], fields[6]
if fields[4] ~= live then
  redis.call('HDEL', KEYS[1], 'ostart', 'odisc')
  start, discard = false, false
end
redis.call('HDEL', KEYS[1], 'oepoch')
redis.call('HSET', KEYS[1], 'otok', ARGV[1], 'oinc', live)
return {tonumber(fields[2] or 0), fields[3], start, discard}
