#!lua
-- Puts records into an index that is being built. KEYS: header, dirty, then one per record. ARGV: the namespace, the marker
-- without its first character, 1 if they are the last, then per record version and terms (keep_index). Answers 1, or 0 if it is not
-- the index that is there.
local epoch, lowest = open_shard(KEYS[1])
if not epoch then return CLOSED end
if memory_in_use() > 0.9 then return FULL end
local namespace, keys, terms = ARGV[1], {}, {}
local marker = index_marker(namespace, epoch)
if not marker or string.sub(marker, 2) ~= ARGV[2] then return 0 end
for i = 3, #KEYS do
  local name = string.sub(KEYS[i], NAME_AT)
  local kind, version, _, parked = slot(redis.call('GETRANGE', KEYS[i], 0, HEAD_END), epoch, lowest)
  if is_image(kind) and version == tonumber(ARGV[2 * (i - 3) + 4]) then
    if parked or redis.call('ZSCORE', KEYS[2], name) then
      keys[#keys + 1] = string.sub(name, #namespace + 2)
      terms[#keys] = ARGV[2 * (i - 3) + 5]
    end
  end
end
if #keys > 0 then keep_index(namespace, epoch, keys, terms) end
if ARGV[3] == '1' then redis.call('HSET', terms_key(namespace), 'm', 'c' .. ARGV[2]) end
return 1
