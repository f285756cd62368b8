#!lua
-- Begins the index of a table, unless it is there. KEYS: header. ARGV: the namespace, the way of indexing. Answers the marker.
-- What an earlier epoch or another way has left is dropped.
local epoch = open_shard(KEYS[1])
if not epoch then return CLOSED end
if memory_in_use() > 0.9 then return FULL end
local namespace = ARGV[1]
local there = index_marker(namespace, epoch)
if there and string.sub(there, 2, 17) == ARGV[2] then return there end
drop_index(namespace)
local empty = redis.call('ZCARD', BASE .. 'd') == 0 and redis.call('ZCARD', parked_key(namespace)) == 0
local build = redis.call('HINCRBY', KEYS[1], 'ix', 1)
local marker = (empty and 'c' or 'b') .. ARGV[2] .. string.format('%010.0f', epoch) .. string.format('%.0f', build)
redis.call('HSET', terms_key(namespace), 'm', marker)
return marker
