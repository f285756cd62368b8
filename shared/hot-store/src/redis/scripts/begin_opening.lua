#!lua flags=allow-oom
-- Begins to open. KEYS: header, dirty, unqueued, discarded. ARGV: token, epoch, start, 1 to discard. Nothing is
-- scanned: the raised epoch voids leases and remembered absences, the raised `min` voids images and requests. The discarded set
-- remembers which of them have no TTL, so that sweep.lua can free them.
local fields = redis.call('HMGET', KEYS[1], 'otok', 'oinc', 'epoch', 'min', 'ostart', 'odisc')
if fields[1] ~= ARGV[1] or fields[2] ~= live_incarnation() then return SUPERSEDED end
local epoch = tonumber(ARGV[2])
if epoch <= tonumber(fields[3] or 0) or epoch < tonumber(fields[4] or 0) then return {ok = 'BEHIND'} end
-- Who resumes an opening that discarded has dropped nothing but what that one already put back: it stays.
local resumes = fields[5] and fields[6] == '1'
if ARGV[4] == '1' and not resumes then
  if redis.call('EXISTS', KEYS[2]) == 1 then
    if redis.call('EXISTS', KEYS[4]) == 1 then
      redis.call('ZUNIONSTORE', KEYS[4], 2, KEYS[4], KEYS[2])
      redis.call('UNLINK', KEYS[2])
    else
      redis.call('RENAME', KEYS[2], KEYS[4])
    end
  end
  redis.call('UNLINK', KEYS[3])
  local tables = redis.call('HKEYS', BASE .. 'n')
  for i = 1, #tables do
    redis.call('UNLINK', behind_key(tables[i]))
    local parked = parked_key(tables[i])
    if redis.call('EXISTS', parked) == 1 then
      redis.call('ZUNIONSTORE', KEYS[4], 2, KEYS[4], parked)
      redis.call('UNLINK', parked)
    end
  end
  redis.call('UNLINK', BASE .. 'n')
  redis.call('HSET', KEYS[1], 'min', ARGV[2])
  -- Nor is it believed after the next restart: by then the log may have grown past it.
  redis.call('HDEL', KEYS[1], 'ckpt')
end
redis.call('HSET', KEYS[1], 'oepoch', ARGV[2], 'ostart', ARGV[3], 'odisc', ARGV[4])
return {ok = 'DONE'}
