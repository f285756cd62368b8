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

-- Epoch, lowest valid epoch of images, clock, how many images were removed, and how many indexes were begun (false: none);
-- nothing unless the shard is open for the live incarnation.
local function open_shard(header)
  local fields = redis.call('HMGET', header, 'inc', 'epoch', 'min', 'clock', 'gone', 'ix')
  if fields[1] ~= live_incarnation() then return nil end
  return tonumber(fields[2]), tonumber(fields[3] or 0), tonumber(fields[4] or 0), tonumber(fields[5] or 0), fields[6]
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

-- The index of a table (index.rs): a sorted set, all of one score, of term and key of each record; and a hash that has the terms of
-- each key under `k` and the key, and under `m` the marker: `c` complete or `b` being built, the way of indexing (16 digits), the
-- epoch (10 digits), and which building it is. Under another epoch it is void.
local TERM = 16
local function entries_key(namespace) return BASE .. 'x:' .. namespace end

local function terms_key(namespace) return BASE .. 'y:' .. namespace end

local function drop_index(namespace) redis.call('UNLINK', entries_key(namespace), terms_key(namespace)) end

-- The marker, if it is of the epoch.
local function index_marker(namespace, epoch)
  local marker = redis.call('HGET', terms_key(namespace), 'm')
  if marker and tonumber(string.sub(marker, 18, 27)) == epoch then return marker end
  return nil, marker
end

-- Lua's stack again: a key may have several entries.
local function call_in_parts(command, key, list)
  for at = 1, #list, 4000 do redis.call(command, key, unpack(list, at, math.min(at + 3999, #list))) end
end

-- Has the index find each of these keys, which differ, by its terms: the way of indexing and then the terms; false: by none any
-- more. Terms of another way leave a hole, so the index is dropped.
local function keep_index(namespace, epoch, keys, terms)
  local marker, void = index_marker(namespace, epoch)
  if not marker then
    if void then drop_index(namespace) end
    return
  end
  local way, fields = string.sub(marker, 2, 17), {}
  for i = 1, #keys do
    if terms[i] and string.sub(terms[i], 1, 16) ~= way then
      drop_index(namespace)
      return
    end
    fields[i] = 'k' .. keys[i]
  end
  local before = redis.call('HMGET', terms_key(namespace), unpack(fields))
  local gone, new, unset, set = {}, {}, {}, {}
  for i = 1, #keys do
    local was, is = before[i] or '', terms[i] and string.sub(terms[i], 17) or ''
    if was ~= is then
      for at = 1, #was, TERM do gone[#gone + 1] = string.sub(was, at, at + TERM - 1) .. keys[i] end
      for at = 1, #is, TERM do
        new[#new + 1] = 0
        new[#new + 1] = string.sub(is, at, at + TERM - 1) .. keys[i]
      end
      if is == '' then
        unset[#unset + 1] = fields[i]
      else
        set[#set + 1] = fields[i]
        set[#set + 1] = is
      end
    end
  end
  call_in_parts('ZREM', entries_key(namespace), gone)
  call_in_parts('ZADD', entries_key(namespace), new)
  call_with('HDEL', terms_key(namespace), unset)
  call_with('HSET', terms_key(namespace), set)
end
