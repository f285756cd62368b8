#!lua flags=no-writes
-- What one shard finds by a term. KEYS: header, entries, terms (prelude.lua). ARGV: from where to where, how many, 1 if the live
-- incarnation is to be told. Answers that, or nothing; the incarnation for which the shard is open, its epoch, its clock, how many
-- images were removed, the index's marker, then the entries. It has no prelude: it is
-- called for all shards at once, and asking for the live incarnation in each would cost more than all else; the caller compares.
local header = redis.call('HMGET', KEYS[1], 'inc', 'epoch', 'clock', 'gone')
local live = ARGV[4] == '1' and string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local marker = redis.call('HGET', KEYS[3], 'm')
local answer = {live, header[1], header[2], header[3], header[4], marker}
if marker then
  local found = redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3])
  for i = 1, #found do answer[i + 6] = found[i] end
end
return answer
