#!lua flags=allow-oom
-- Parks records that the dead letters have. KEYS: header, dirty, unqueued, then one per record. ARGV: their versions.
-- Answers one character per record: p parked, s superseded, g gone. If a power loss tears it, the record is still in the
-- dirty set, so it is produced and refused again, and comes here again.
local epoch, lowest = open_shard(KEYS[1])
if not epoch then return CLOSED end
local answer, bytes = {}, {}
for i = 4, #KEYS do
  local key, asked = KEYS[i], tonumber(ARGV[i - 3])
  local name = string.sub(key, NAME_AT)
  local kind, version, _, parked = slot(redis.call('GETRANGE', key, 0, HEAD_END), epoch, lowest)
  local outcome = 's'
  if kind ~= 'X' and (not is_image(kind) or version < asked) then
    outcome = 'g'
  elseif is_image(kind) and version == asked then
    local dirty = redis.call('ZSCORE', KEYS[2], name)
    if dirty or parked then
      local namespace = namespace_of(name)
      redis.call('SETRANGE', key, 0, kind == 'I' and 'P' or 'Q')
      redis.call('ZADD', parked_key(namespace), ARGV[i - 3], name)
      if dirty then
        bytes[namespace] = (bytes[namespace] or 0) - (redis.call('STRLEN', key) - HEAD_END - 1)
        redis.call('ZREM', behind_key(namespace), name)
        redis.call('ZREM', KEYS[3], name)
        redis.call('ZREM', KEYS[2], name)
      end
      outcome = 'p'
    end
  end
  answer[#answer + 1] = outcome
end
count_bytes(bytes)
return table.concat(answer)
