#!lua flags=allow-oom
-- Puts records back. KEYS: header, dirty, unqueued, then one per record. ARGV: token, TTL in ms, then per record what
-- to do (D dirty and queued, C clean, G gone), kind, version (of G: the purge horizon), `since`, payload.
local fields = redis.call('HMGET', KEYS[1], 'otok', 'oinc', 'oepoch', 'min')
if fields[1] ~= ARGV[1] or fields[2] ~= live_incarnation() or not fields[3] then return SUPERSEDED end
local epoch, lowest = tonumber(fields[3]), tonumber(fields[4] or 0)
for i = 4, #KEYS do
  local key, at = KEYS[i], 5 * (i - 4) + 3
  local action, asked = ARGV[at], tonumber(ARGV[at + 2])
  local name = string.sub(key, NAME_AT)
  local kind, version = slot(redis.call('GETRANGE', key, 0, HEAD_END), epoch, lowest)
  local held = is_image(kind)
  if action == 'G' then
    if held and version <= asked then
      redis.call('DEL', key)
      redis.call('ZREM', KEYS[2], name)
      redis.call('ZREM', KEYS[3], name)
    end
  elseif not held or version < asked then
    local value = head_of(ARGV[at + 1], asked, epoch, tonumber(ARGV[at + 3])) .. ARGV[at + 4]
    if action == 'D' then
      redis.call('SET', key, value)
      redis.call('ZADD', KEYS[2], ARGV[at + 2], name)
    else
      redis.call('SET', key, value, 'PX', ARGV[2])
      redis.call('ZREM', KEYS[2], name)
    end
    redis.call('ZREM', KEYS[3], name)
  elseif action == 'C' and version == asked then
    -- The mark that it is clean was lost with the store's tail: nobody else would bring it back.
    redis.call('PEXPIRE', key, ARGV[2])
    redis.call('ZREM', KEYS[2], name)
    redis.call('ZREM', KEYS[3], name)
  end
end
return {ok = 'DONE'}
