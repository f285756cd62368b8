#!lua flags=allow-oom
-- Removes a replica's report. KEYS: index. ARGV: the replica's incarnation.
redis.call('DEL', BASE .. 'r:' .. ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
return {ok = 'DONE'}
