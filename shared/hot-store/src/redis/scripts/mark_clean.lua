#!lua flags=allow-oom
-- Marks records as held by the database. KEYS: header, dirty, unqueued, then one per record. ARGV: TTL in ms, then per
-- record the version, and kind and payload of a newer row (both empty: none). Answers one character per record: c
-- clean, n a newer version is there, g gone. It may exceed the memory limit, or a full store could never empty.
local epoch, lowest = open_shard(KEYS[1])
if not epoch then return CLOSED end
local answer, clean = {}, {}
for i = 4, #KEYS do
  local key, at = KEYS[i], 3 * (i - 4) + 2
  local asked, newer = tonumber(ARGV[at]), ARGV[at + 1]
  local kind, version = slot(redis.call('GETRANGE', key, 0, HEAD_END), epoch, lowest)
  local outcome
  if not is_image(kind) then
    -- A lease is broken and a remembered absence forgotten: the database has just said something newer.
    if kind then redis.call('DEL', key) end
    outcome = 'g'
  elseif version > asked then
    outcome = 'n'
  elseif version == asked then
    redis.call('PEXPIRE', key, ARGV[1])
    outcome = 'c'
  elseif newer ~= '' then
    redis.call('SET', key, head_of(newer, asked, epoch, 0) .. ARGV[at + 2], 'PX', ARGV[1])
    outcome = 'c'
  else
    -- Lower than what the database holds, and nobody says what that is: the next read asks the database.
    redis.call('DEL', key)
    outcome = 'g'
  end
  if is_image(kind) and outcome ~= 'n' then clean[#clean + 1] = string.sub(key, NAME_AT) end
  answer[#answer + 1] = outcome
end
call_with('ZREM', KEYS[2], clean)
call_with('ZREM', KEYS[3], clean)
return table.concat(answer)
