#!lua flags=allow-oom
-- Stores a checkpoint. KEYS: header. ARGV: epoch, checkpoint.
if open_shard(KEYS[1]) ~= tonumber(ARGV[1]) then return CLOSED end
redis.call('HSET', KEYS[1], 'ckpt', ARGV[2])
return {ok = 'DONE'}
