-- What every script shares; put behind its first line. Versions are numbers below 2^53, so a double holds them exactly,
-- but only %.0f prints them so. The layout of a record's value is described in value.rs.
local CLOSED = {ok = 'CLOSED'}
local SUPERSEDED = {ok = 'SUPERSEDED'}
local LATE = {ok = 'LATE'}
local FULL = {ok = 'FULL'}
local EVICTS = {ok = 'EVICTS'}
local HEAD_END = 42
-- Where the record's name (its member in the sorted sets) begins in its key: the header's key ends with `h`, a record's
-- key has `r:` and the name in its place.
local NAME_AT = #KEYS[1] + 2
-- What every key of the shard begins with.
local BASE = string.sub(KEYS[1], 1, -2)

local function text_between(info, label, length)
  local _, at = string.find(info, label, 1, true)
  return string.sub(info, at + 1, at + length)
end

-- The incarnation of the store: another one after every start of the server.
local function live_incarnation()
  return text_between(redis.call('INFO', 'server'), 'run_id:', 40)
end

-- Epoch, lowest valid epoch of images, clock, and how many images were removed; nothing unless the shard is open for the
-- live incarnation.
local function open_shard(header)
  local fields = redis.call('HMGET', header, 'inc', 'epoch', 'min', 'clock', 'gone')
  if fields[1] ~= live_incarnation() then return nil end
  return tonumber(fields[2]), tonumber(fields[3] or 0), tonumber(fields[4] or 0), tonumber(fields[5] or 0)
end

-- Notes that so many images were removed, which is told with every read: who looked into the database meanwhile may have
-- seen it without them.
local function count_removed(images)
  if images > 0 then redis.call('HINCRBY', KEYS[1], 'gone', images) end
end

local PARKED = {P = 'I', Q = 'T'}

-- Kind, version and `since` of what a value's head says, and whether it is parked; nothing if there is none, or if an
-- opening has voided it. A parked row is a row, and a parked tombstone a tombstone. The
-- kind X is a value that nobody here has written: one bad key must not fail a call that concerns others, too.
local function slot(head, epoch, lowest)
  if not head or head == '' then return nil end
  local kind = string.sub(head, 1, 1)
  local version, since = tonumber(string.sub(head, 2, 17)), tonumber(string.sub(head, 28, 43))
  local born = tonumber(string.sub(head, 18, 27))
  if not (version and born and since) then return 'X', 0, 0 end
  if kind == 'I' or kind == 'T' or PARKED[kind] then
    if born < lowest then return nil end
    return PARKED[kind] or kind, version, since, PARKED[kind] ~= nil
  end
  if kind ~= 'L' and kind ~= 'A' then return 'X', 0, 0 end
  if born < epoch then return nil end
  return kind, 0, 0
end

local function is_image(kind) return kind == 'I' or kind == 'T' end

local function head_of(kind, version, epoch, since)
  return string.format('%s%016.0f%010.0f%016.0f', kind, version, epoch, since)
end

-- The namespace in a record's name.
local function namespace_of(name)
  return string.sub(name, 1, string.find(name, '\0', 1, true) - 1)
end

local function behind_key(namespace) return BASE .. 'b:' .. namespace end

local function parked_key(namespace) return BASE .. 'p:' .. namespace end

-- Adds to the bytes of dirty images, given by namespace.
local function count_bytes(bytes)
  for namespace, more in pairs(bytes) do
    if more ~= 0 then redis.call('HINCRBY', BASE .. 'n', namespace, string.format('%.0f', more)) end
  end
end

-- A request's value: version, epoch in which it was stored, digest.
local function request_value(version, epoch, digest)
  return string.format('%016.0f%010.0f', version, epoch) .. digest
end

-- Version, epoch and digest of a request's value; nothing if there is none. No opening voids it: what the request wrote was
-- either set aside, or the database has it.
local function request_in(value)
  if not value then return nil end
  local version, born = tonumber(string.sub(value, 1, 16)), tonumber(string.sub(value, 17, 26))
  if not (version and born) then return nil end
  return version, born, string.sub(value, 27)
end

-- The part of the memory limit that is used, and whether Redis would throw keys away to keep it.
local function memory_in_use()
  local info = redis.call('INFO', 'memory')
  local limit = tonumber(string.match(text_between(info, 'maxmemory:', 20), '%d+'))
  if limit == 0 then return 0, false end
  local used = tonumber(string.match(text_between(info, 'used_memory:', 20), '%d+'))
  return used / limit, text_between(info, 'maxmemory_policy:', 10) ~= 'noeviction'
end

-- Lua's stack holds some 8,000 values; a call never carries more than 1,000 records.
local function call_with(command, key, list)
  if #list > 0 then redis.call(command, key, unpack(list)) end
end
