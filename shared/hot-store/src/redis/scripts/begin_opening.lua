#!lua flags=allow-oom
-- Begins to open. KEYS: header, dirty, unqueued, aside. ARGV: token, epoch, start, 1 to discard. Nothing is
-- scanned: the raised epoch voids leases and remembered absences, the raised `min` voids images. Those of what was dirty
-- stay where they are, and the set of what is set aside has their names, each with the lowest version that the database may
-- lack, until the opener has put something in their place.
local fields = redis.call('HMGET', KEYS[1], 'otok', 'oinc', 'epoch', 'min', 'ostart', 'odisc')
if fields[1] ~= ARGV[1] or fields[2] ~= live_incarnation() then return SUPERSEDED end
local epoch = tonumber(ARGV[2])
if epoch <= tonumber(fields[3] or 0) or epoch < tonumber(fields[4] or 0) then return {ok = 'BEHIND'} end
-- Who resumes an opening that discarded has dropped nothing but what that one already put back: it stays.
local resumes = fields[5] and fields[6] == '1'
if ARGV[4] == '1' and not resumes then
  local tables = redis.call('HKEYS', BASE .. 'n')
  -- An opening that did not get to its end may have left some there: the store was lost once more, or they are unreadable.
  -- What is parked comes with them: whether the dead letters still have it is not known, and it will be refused again.
  local sets = {0, KEYS[4], KEYS[2]}
  for t = 1, #tables do
    sets[#sets + 1] = behind_key(tables[t])
    sets[#sets + 1] = parked_key(tables[t])
  end
  sets[1] = #sets - 1
  sets[#sets + 1] = 'AGGREGATE'
  sets[#sets + 1] = 'MIN'
  redis.call('ZUNIONSTORE', KEYS[4], unpack(sets))
  redis.call('UNLINK', KEYS[2], KEYS[3], BASE .. 'n')
  for t = 1, #tables do redis.call('UNLINK', behind_key(tables[t]), parked_key(tables[t])) end
  redis.call('HSET', KEYS[1], 'min', ARGV[2])
  -- Nor is it believed after the next restart: by then the log may have grown past it.
  redis.call('HDEL', KEYS[1], 'ckpt')
end
redis.call('HSET', KEYS[1], 'oepoch', ARGV[2], 'ostart', ARGV[3], 'odisc', ARGV[4])
return {ok = 'DONE'}
