#!lua flags=allow-oom
-- Stores a replica's report. KEYS: index. ARGV: the replica's incarnation, its report, TTL in ms, how many are kept. The
-- index holds the ends of the TTLs, in ms of our clock.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', BASE .. 'r:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {ok = 'DONE'}
