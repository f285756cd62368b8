-- What every script shares; put behind its first line. Versions are numbers below 2^53, so a double holds them exactly,
-- but only %.0f prints them so. The layout of a record's value is described in record.rs.
local CLOSED = {ok = 'CLOSED'}
local SUPERSEDED = {ok = 'SUPERSEDED'}
local FULL = {ok = 'FULL'}
local HEAD_END = 42
-- Where the record's name (its member in the sorted sets) begins in its key: the header's key ends with `h`, a record's
-- key has `r:` and the name in its place.
local NAME_AT = #KEYS[1] + 2

local function text_between(info, label, length)
  local _, at = string.find(info, label, 1, true)
  return string.sub(info, at + 1, at + length)
end

-- The incarnation of the store: another one after every start of the server.
local function live_incarnation()
  return text_between(redis.call('INFO', 'server'), 'run_id:', 40)
end

-- Epoch, lowest valid epoch of images, and clock; nothing unless the shard is open for the live incarnation.
local function open_shard(header)
  local fields = redis.call('HMGET', header, 'inc', 'epoch', 'min', 'clock')
  if fields[1] ~= live_incarnation() then return nil end
  return tonumber(fields[2]), tonumber(fields[3] or 0), tonumber(fields[4] or 0)
end

-- Kind, version and `since` of what a value's head says; nothing if there is none, or if an opening has voided it.
local function slot(head, epoch, lowest)
  if not head or head == '' then return nil end
  local kind = string.sub(head, 1, 1)
  local born = tonumber(string.sub(head, 18, 27))
  if kind == 'I' or kind == 'T' then
    if born < lowest then return nil end
    return kind, tonumber(string.sub(head, 2, 17)), tonumber(string.sub(head, 28, 43))
  end
  if born < epoch then return nil end
  return kind, 0, 0
end

local function is_image(kind) return kind == 'I' or kind == 'T' end

local function head_of(kind, version, epoch, since)
  return string.format('%s%016.0f%010.0f%016.0f', kind, version, epoch, since)
end

local function memory_in_use()
  local info = redis.call('INFO', 'memory')
  local limit = tonumber(string.match(text_between(info, 'maxmemory:', 20), '%d+'))
  if limit == 0 then return 0 end
  return tonumber(string.match(text_between(info, 'used_memory:', 20), '%d+')) / limit
end

-- Lua's stack holds some 8,000 values; a call never carries more than 1,000 records.
local function call_with(command, key, list)
  if #list > 0 then redis.call(command, key, unpack(list)) end
end
