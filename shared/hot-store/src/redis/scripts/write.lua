#!lua
-- Writes records. KEYS: header, dirty, unqueued, then one per write. ARGV: per write a condition and the payload.
-- A condition is the kind (I, T), then what must hold: n nothing, a absent, s absent from the store, p present,
-- @ version (16 digits) and epoch (10 digits). Answers the epoch, then per write version and `since`, or a code below
-- 0 and 0. Without the flag allow-oom a full Redis refuses this script as a whole, before it has touched anything.
local epoch, lowest, clock = open_shard(KEYS[1])
if not epoch then return CLOSED end
if memory_in_use() > 0.9 then return FULL end

local EXISTS, MISSING, CHANGED, COLD = -1, -2, -3, -4
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local written = {} -- heads written by this very call
local values, marks, answer = {}, {}, {epoch}

local function refusal(condition, asked, kind, version)
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
  if kind ~= 'I' then return MISSING end
  if condition == '@' then
    local read_version, read_epoch = tonumber(string.sub(asked, 3, 18)), tonumber(string.sub(asked, 19, 28))
    if read_version ~= version or read_epoch ~= epoch then return CHANGED end
  end
  return nil
end

for i = 4, #KEYS do
  local key = KEYS[i]
  local asked = ARGV[2 * (i - 4) + 1]
  local condition = string.sub(asked, 2, 2)
  local kind, version, since = slot(written[key] or redis.call('GETRANGE', key, 0, HEAD_END), epoch, lowest)
  local refused = refusal(condition, asked, kind, version)
  if refused then
    answer[#answer + 1] = refused
    answer[#answer + 1] = 0
  else
    clock = math.max(clock + 1, now)
    local name = string.sub(key, NAME_AT)
    local next_since = 0
    if is_image(kind) and (since > 0 or condition == 's') then
      -- What the store knows of a dirty record, it knows for sure: only its own `since` goes on.
      if written[key] or redis.call('ZSCORE', KEYS[2], name) then
        next_since = since
      elseif condition == 's' then
        next_since = clock
      end
    elseif condition == 's' then
      next_since = clock
    end
    local head = head_of(string.sub(asked, 1, 1), clock, epoch, next_since)
    written[key] = head
    values[#values + 1] = key
    values[#values + 1] = head .. ARGV[2 * (i - 4) + 2]
    marks[#marks + 1] = string.format('%.0f', clock)
    marks[#marks + 1] = name
    answer[#answer + 1] = clock
    answer[#answer + 1] = next_since
  end
end

if #values > 0 then
  redis.call('HSET', KEYS[1], 'clock', string.format('%.0f', clock))
  redis.call('MSET', unpack(values)) -- as SET, it takes any TTL away: what is dirty never expires
  call_with('ZADD', KEYS[2], marks)
  call_with('ZADD', KEYS[3], marks)
end
return answer
