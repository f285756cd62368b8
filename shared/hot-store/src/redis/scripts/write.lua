#!lua
-- Writes records. KEYS: header, dirty, unqueued, then one per write. ARGV: the request window in ms, our time in microseconds
-- after which nothing may be written any more, then per write a condition and the payload. A condition is the kind (I, T), then what must hold: n nothing, a absent, s absent from
-- the store, p present, @ at version (16 digits) and epoch (10 digits), k parked at these; then the request, if there is one: digest (16
-- bytes) and id. Behind them, if any of the records has declared fields, one per write: what the index has of it (keep_index), or empty. Answers the epoch, our time, then per write version and `since`; or a code below 0 and 0; or REPEATED and
-- version and epoch of the first. Without the flag allow-oom a full Redis refuses this script as a whole, before it has
-- touched anything.
local epoch, lowest, clock, _, indexed = open_shard(KEYS[1])
if not epoch then return CLOSED end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[2]) then return LATE end
local in_use, evicts = memory_in_use()
if evicts then return EVICTS end -- it was changed while we run: nothing may be promised for what could be thrown away
if in_use > 0.9 then return FULL end

local EXISTS, MISSING, CHANGED, COLD, REPEATED, REUSED, HALTED = -1, -2, -3, -4, -5, -6, -7
local halt = redis.call('HGET', KEYS[1], 'halt') -- see halt.lua; nearly always there is none
local written = {} -- where in `values` stands what this very call writes
local requests = {} -- values of requests that it stores
local values, marks, answer = {}, {}, {epoch, now}
local bytes, tables = {}, 0 -- by namespace, what the dirty images grow by; and how many namespaces
local indexes = {} -- by namespace: keys, their terms, and where in both a key is
local terms_at = 2 * (#KEYS - 3) - 1 -- and the number of a write's key: where its terms are
local namespace, beginning -- of the last record, and how its name begins: the next one's is nearly always the same

-- Whether the record of the given key was dirty before this call. All are asked for at once, where any is needed.
local scores
local function was_dirty(i)
  if not scores then
    local names = {}
    for j = 4, #KEYS do names[j - 3] = string.sub(KEYS[j], NAME_AT) end
    scores = redis.call('ZMSCORE', KEYS[2], unpack(names))
  end
  return scores[i - 3]
end

local unparked = {} -- namespaces and names of what is parked and written again

local function is_named(asked, version)
  local read_version, read_epoch = tonumber(string.sub(asked, 3, 18)), tonumber(string.sub(asked, 19, 28))
  return not (read_version ~= version or read_epoch ~= epoch)
end

local function refusal(condition, asked, kind, version, parked)
  if condition == 'n' then return nil end
  if condition == 's' then
    if kind == 'I' then return EXISTS end
    return nil
  end
  if kind == nil or kind == 'L' then return COLD end
  if condition == 'a' then
    if kind == 'I' then return EXISTS end
    return nil
  end
  if condition == 'k' then
    if parked and is_named(asked, version) then return nil end
    return CHANGED
  end
  if kind ~= 'I' then return MISSING end
  if condition == '@' and not is_named(asked, version) then return CHANGED end
  return nil
end

for i = 4, #KEYS do
  local key = KEYS[i]
  local asked, payload = ARGV[2 * (i - 4) + 3], ARGV[2 * (i - 4) + 4]
  local condition = string.sub(asked, 2, 2)
  local name = string.sub(key, NAME_AT)
  if not beginning or string.sub(name, 1, #beginning) ~= beginning then
    namespace = namespace_of(name)
    beginning = namespace .. '\0'
  end

  local request, digest, earlier_version, earlier_epoch, earlier_digest
  local request_at = (condition == '@' or condition == 'k') and 29 or 3
  if #asked >= request_at then
    digest = string.sub(asked, request_at, request_at + 15)
    request = BASE .. 'q:' .. namespace .. '\0' .. string.sub(asked, request_at + 16)
    earlier_version, earlier_epoch, earlier_digest =
      request_in(requests[request] or redis.call('GET', request))
  end

  if earlier_version then
    if earlier_digest == digest then
      answer[#answer + 1] = REPEATED
      answer[#answer + 1] = earlier_version
      answer[#answer + 1] = earlier_epoch
    else
      answer[#answer + 1] = REUSED
      answer[#answer + 1] = 0
    end
  elseif halt and (halt == '*' or string.find(halt, '\0' .. namespace .. '\0', 1, true)) then
    answer[#answer + 1] = HALTED
    answer[#answer + 1] = 0
  else
    local at = written[key]
    local head = at and values[at] or redis.call('GETRANGE', key, 0, HEAD_END)
    local kind, version, since, parked = slot(head, epoch, lowest)
    local refused = refusal(condition, asked, kind, version, parked)
    if refused then
      answer[#answer + 1] = refused
      answer[#answer + 1] = 0
    else
      clock = math.max(clock + 1, now)
      local dirty = is_image(kind) and (at or was_dirty(i))
      local next_since = 0
      if parked and condition == 'n' then
        -- The create is in the dead letters; this write asks for nothing that was there.
        next_since = 0
      elseif dirty or parked then
        -- What the store knows of a dirty or parked record, it knows for sure: only its own `since` goes on.
        next_since = since
      elseif condition == 's' then
        next_since = clock
      end
      if parked then
        unparked[#unparked + 1] = namespace
        unparked[#unparked + 1] = name
      end
      local more = #payload
      if dirty then more = more - ((at and #values[at] or redis.call('STRLEN', key)) - HEAD_END - 1) end
      if not bytes[namespace] then
        bytes[namespace] = 0
        tables = tables + 1
      end
      bytes[namespace] = bytes[namespace] + more

      if indexed then
        local change = indexes[namespace]
        if not change then
          change = {keys = {}, terms = {}, places = {}}
          indexes[namespace] = change
        end
        local place = change.places[name]
        if not place then
          place = #change.keys + 1
          change.places[name] = place
          change.keys[place] = string.sub(name, #beginning + 1)
        end
        change.terms[place] = ARGV[terms_at + i] or ''
      end

      values[#values + 1] = key
      values[#values + 1] = head_of(string.sub(asked, 1, 1), clock, epoch, next_since) .. payload
      written[key] = #values
      marks[#marks + 1] = string.format('%.0f', clock)
      marks[#marks + 1] = name
      if request then requests[request] = request_value(clock, epoch, digest) end
      answer[#answer + 1] = clock
      answer[#answer + 1] = next_since
    end
  end
end

if #values > 0 then
  redis.call('HSET', KEYS[1], 'clock', string.format('%.0f', clock))
  for i = 1, #unparked, 2 do redis.call('ZREM', parked_key(unparked[i]), unparked[i + 1]) end
  redis.call('MSET', unpack(values)) -- as SET, it takes any TTL away: what is dirty never expires
  call_with('ZADD', KEYS[2], marks)
  call_with('ZADD', KEYS[3], marks)
  -- NX: of a record that is dirty already, the database lacks more than this write.
  for of_table in pairs(bytes) do
    local its = marks
    if tables > 1 then
      its = {}
      for m = 2, #marks, 2 do
        if namespace_of(marks[m]) == of_table then
          its[#its + 1] = marks[m - 1]
          its[#its + 1] = marks[m]
        end
      end
    end
    redis.call('ZADD', behind_key(of_table), 'NX', unpack(its))
  end
  count_bytes(bytes)
  for of_table, change in pairs(indexes) do keep_index(of_table, epoch, change.keys, change.terms) end
  for request, value in pairs(requests) do redis.call('SET', request, value, 'PX', ARGV[1]) end
end
return answer
