#!lua flags=allow-oom
-- Puts records and requests back as far as what is there allows it; where nothing is, see restore_new.rs. KEYS: header,
-- dirty, unqueued, then one per record or request. ARGV: token, TTL in ms, request window in ms, then per key what to do
-- (D dirty and queued, U dirty and not, P parked, C clean, G gone, B behind, Q request), kind (of P that of a parked
-- record), version (of G: the purge horizon), up to where the database is behind, `since`, payload (of Q: the digest).
local fields = redis.call('HMGET', KEYS[1], 'otok', 'oinc', 'oepoch', 'min')
if fields[1] ~= ARGV[1] or fields[2] ~= live_incarnation() or not fields[3] then return SUPERSEDED end
local epoch, lowest = tonumber(fields[3]), tonumber(fields[4] or 0)
local bytes = {} -- by namespace: what the dirty images grow by
local aside = redis.call('EXISTS', BASE .. 'g') == 1

-- The record is dirty no longer, if it was; its value still stands there.
local function take_mark(key, name, namespace)
  if redis.call('ZREM', KEYS[2], name) == 1 then
    redis.call('ZREM', KEYS[3], name)
    redis.call('ZREM', behind_key(namespace), name)
    bytes[namespace] = (bytes[namespace] or 0) - (redis.call('STRLEN', key) - HEAD_END - 1)
  end
end

local function unpark(name, namespace) redis.call('ZREM', parked_key(namespace), name) end

local namespace, beginning -- of the last record, and how its name begins: the next one's is nearly always the same

for i = 4, #KEYS do
  local key, at = KEYS[i], 6 * (i - 4) + 4
  local action, asked, payload = ARGV[at], tonumber(ARGV[at + 2]), ARGV[at + 5]
  local name = string.sub(key, NAME_AT)
  if action ~= 'Q' and not (beginning and string.sub(name, 1, #beginning) == beginning) then
    namespace = namespace_of(name)
    beginning = namespace .. '\0'
  end
  if action == 'Q' then
    local version = request_in(redis.call('GET', key))
    if not version or version <= asked then
      redis.call('SET', key, request_value(asked, epoch, payload), 'PX', ARGV[3])
    end
  elseif action == 'B' then
    -- Only what is dirty has a place there.
    redis.call('ZADD', behind_key(namespace), 'XX', 'LT', ARGV[at + 3], name)
  else
    local kind, version, _, parked = slot(redis.call('GETRANGE', key, 0, HEAD_END), epoch, lowest)
    local held = is_image(kind)
    local as = ARGV[at + 1]
    if action == 'P' and held and version < asked and redis.call('ZSCORE', KEYS[2], name) then
      -- The database may lack the lower one, and the horizon must not pass that.
      action, as = 'D', PARKED[as]
    end
    if action == 'G' then
      if not kind or held and version <= asked then
        take_mark(key, name, namespace)
        if parked then unpark(name, namespace) end
        redis.call('DEL', key)
      end
    elseif not held or version < asked then
      local value = head_of(as, asked, epoch, tonumber(ARGV[at + 4])) .. payload
      if parked then unpark(name, namespace) end
      if action == 'P' then
        redis.call('SET', key, value)
        redis.call('ZADD', parked_key(namespace), ARGV[at + 2], name)
        redis.call('HSETNX', BASE .. 'n', namespace, 0) -- by it begin_opening.lua knows the table
      elseif action == 'D' or action == 'U' then
        local dirty = held and redis.call('ZSCORE', KEYS[2], name)
        local before = dirty and redis.call('STRLEN', key) - HEAD_END - 1 or 0
        bytes[namespace] = (bytes[namespace] or 0) + #payload - before
        redis.call('SET', key, value)
        redis.call('ZADD', KEYS[2], ARGV[at + 2], name)
        redis.call('ZADD', behind_key(namespace), 'LT', ARGV[at + 3], name)
        if dirty then redis.call('ZREM', KEYS[3], name) end
        if action == 'U' then redis.call('ZADD', KEYS[3], ARGV[at + 2], name) end
      else
        if held then take_mark(key, name, namespace) end
        redis.call('SET', key, value, 'PX', ARGV[2])
      end
    elseif action == 'P' then
      -- It is there, parked or dirty: then it will be refused again.
    elseif action == 'D' or action == 'U' then
      local behind = redis.call('ZSCORE', behind_key(namespace), name)
      if parked and version == asked then
        -- The dead letters have it. Redis may have run the half of what parked it.
        take_mark(key, name, namespace)
        redis.call('ZADD', parked_key(namespace), ARGV[at + 2], name)
      elseif version == asked and not behind and redis.call('PTTL', key) == -1 then
        -- What is clean has a TTL. So marks are missing that were written behind the image: Redis ran the half of a
        -- transaction that a power loss tore.
        bytes[namespace] = (bytes[namespace] or 0) + redis.call('STRLEN', key) - HEAD_END - 1
        redis.call('ZADD', KEYS[2], ARGV[at + 2], name)
        redis.call('ZADD', behind_key(namespace), ARGV[at + 3], name)
      else
        redis.call('ZADD', behind_key(namespace), 'XX', 'LT', ARGV[at + 3], name)
      end
    elseif version == asked then
      -- The mark that it is clean was lost with the store's tail: nobody else would bring it back.
      take_mark(key, name, namespace)
      if parked then
        unpark(name, namespace)
        redis.call('SETRANGE', key, 0, kind)
      end
      redis.call('PEXPIRE', key, ARGV[2])
    else
      redis.call('ZADD', behind_key(namespace), 'XX', 'GT', string.format('%.0f', asked + 1), name)
    end
    if aside then redis.call('ZREM', BASE .. 'g', name) end -- last: half of this would lose it
  end
end
count_bytes(bytes)
return {ok = 'DONE'}
