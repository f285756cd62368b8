#!lua flags=allow-oom
-- The backlogs of tables. KEYS: header. ARGV: namespaces. Answers epoch and clock, then per table how many records are
-- dirty, their bytes, the lowest version that the database may lack, or -1, how many records are parked, and their lowest
-- version, or -1. Where the database lacks none, the caller takes the clock for the horizon: it is raised to the store's
-- time first, so that a quiet table's horizon goes on.
local LOOKED_AT = 100
local epoch, _, clock = open_shard(KEYS[1])
if not epoch then return CLOSED end
local answer, idle = {epoch, 0}, false

-- Each dirty record has an entry that says how far the database is behind with it. One without was written by a release
-- that had none, or Redis ran the half of a transaction that a power loss tore.
local lacking = redis.call('ZCARD', BASE .. 'd')
local counted = {}
local function count(namespace)
  if not counted[namespace] then
    counted[namespace] = true
    lacking = lacking - redis.call('ZCARD', behind_key(namespace))
  end
end
for i = 1, #ARGV do count(ARGV[i]) end
if lacking > 0 then
  local tables = redis.call('HKEYS', BASE .. 'n')
  for i = 1, #tables do count(tables[i]) end
end
local listed = lacking > 0 and redis.call('ZRANGE', BASE .. 'd', 0, LOOKED_AT - 1, 'WITHSCORES') or {}

-- A version that is not above any dirty one of the table that lacks its entry; nothing if there is none.
local function oldest_without_entry(namespace)
  local beginning = namespace .. '\0'
  for i = 1, #listed, 2 do
    local name = listed[i]
    if string.sub(name, 1, #beginning) == beginning and not redis.call('ZSCORE', behind_key(namespace), name) then
      return listed[i + 1]
    end
  end
  return #listed == 2 * LOOKED_AT and listed[#listed] or nil
end

for i = 1, #ARGV do
  local key = behind_key(ARGV[i])
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  local without_entry = oldest_without_entry(ARGV[i])
  if without_entry and (not oldest or tonumber(without_entry) < tonumber(oldest)) then oldest = without_entry end
  answer[#answer + 1] = redis.call('ZCARD', key)
  answer[#answer + 1] = math.max(tonumber(redis.call('HGET', BASE .. 'n', ARGV[i]) or 0), 0)
  answer[#answer + 1] = tonumber(oldest or -1)
  local parked = parked_key(ARGV[i])
  answer[#answer + 1] = redis.call('ZCARD', parked)
  answer[#answer + 1] = tonumber(redis.call('ZRANGE', parked, 0, 0, 'WITHSCORES')[2] or -1)
  idle = idle or not oldest
end
if idle then
  local time = redis.call('TIME')
  clock = math.max(clock, time[1] * 1000000 + time[2])
  redis.call('HSET', KEYS[1], 'clock', string.format('%.0f', clock))
end
answer[2] = clock
return answer
