#!lua flags=allow-oom
-- Takes records out of the unqueued set. KEYS: header, unqueued, then one per record. ARGV: the epoch under which they
-- were written, then their versions. Answers one character per record: 1 unless the store has lost it.
local epoch, lowest = open_shard(KEYS[1])
if epoch ~= tonumber(ARGV[1]) then return CLOSED end
local answer, queued = {}, {}
for i = 3, #KEYS do
  local asked = tonumber(ARGV[i - 1])
  local kind, version = slot(redis.call('GETRANGE', KEYS[i], 0, HEAD_END), epoch, lowest)
  local known = is_image(kind) and version >= asked
  -- An unqueued mark always has its record's version, so there is no need to look at its score.
  if known and version == asked then queued[#queued + 1] = string.sub(KEYS[i], NAME_AT) end
  answer[#answer + 1] = known and '1' or '0'
end
call_with('ZREM', KEYS[2], queued)
return table.concat(answer)
