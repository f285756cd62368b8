#!lua flags=allow-oom
-- Marks records as held by the database. KEYS: header, dirty, unqueued, then one per record. ARGV: TTL in ms, then per
-- record the version, and kind and payload of a newer row (both empty: none). Answers one character per record: c
-- clean, n a newer version is there, g gone. It may exceed the memory limit, or a full store could never empty.
local epoch, lowest, _, _, indexed = open_shard(KEYS[1])
if not epoch then return CLOSED end
if #KEYS == 3 then return '' end
local names = {}
for i = 4, #KEYS do names[#names + 1] = string.sub(KEYS[i], NAME_AT) end
local scores = redis.call('ZMSCORE', KEYS[2], unpack(names))
local answer, clean, done = {}, {}, {}
local raised, cleaned, bytes, removed = {}, {}, {}, 0 -- by namespace: marks, names, and what the dirty images shrink by
local unindexed, seen = {}, {} -- by namespace: keys; and which names are among them

local function of_table(lists, namespace)
  local list = lists[namespace]
  if not list then
    list = {}
    lists[namespace] = list
  end
  return list
end

for i = 4, #KEYS do
  local key, name, at = KEYS[i], names[i - 3], 3 * (i - 4) + 2
  local asked, newer = tonumber(ARGV[at]), ARGV[at + 1]
  local namespace = namespace_of(name)
  local kind, version, _, parked = slot(redis.call('GETRANGE', key, 0, HEAD_END), epoch, lowest)
  local outcome
  if is_image(kind) and version > asked then
    outcome = 'n'
    -- XX and GT: if it is dirty, the database lacks nothing of it up to here.
    local marks = of_table(raised, namespace)
    marks[#marks + 1] = string.format('%.0f', asked + 1)
    marks[#marks + 1] = name
  elseif kind == 'X' then
    outcome = 'n' -- it stays as it is: nobody can say what is lost with it
  else
    if indexed and not seen[name] then
      seen[name] = true
      local keys = of_table(unindexed, namespace)
      keys[#keys + 1] = string.sub(name, #namespace + 2)
    end
    if scores[i - 3] and not done[name] then
      done[name] = true
      clean[#clean + 1] = name
      local list = of_table(cleaned, namespace)
      list[#list + 1] = name
      if is_image(kind) then
        bytes[namespace] = (bytes[namespace] or 0) - (redis.call('STRLEN', key) - HEAD_END - 1)
      end
    end
    if parked then
      -- The database has taken it after all, or something newer.
      redis.call('ZREM', parked_key(namespace), name)
      if version == asked then redis.call('SETRANGE', key, 0, kind) end
    end
    if not is_image(kind) then
      -- A lease is broken and a remembered absence forgotten: the database has just said something newer.
      if kind then redis.call('DEL', key) end
      outcome = 'g'
    elseif version == asked then
      redis.call('PEXPIRE', key, ARGV[1])
      outcome = 'c'
    elseif newer ~= '' then
      redis.call('SET', key, head_of(newer, asked, epoch, 0) .. ARGV[at + 2], 'PX', ARGV[1])
      outcome = 'c'
    else
      -- Lower than what the database holds, and nobody says what that is: the next read asks the database.
      redis.call('DEL', key)
      removed = removed + 1
      outcome = 'g'
    end
  end
  answer[#answer + 1] = outcome
end
call_with('ZREM', KEYS[2], clean)
call_with('ZREM', KEYS[3], clean)
for namespace, marks in pairs(raised) do redis.call('ZADD', behind_key(namespace), 'XX', 'GT', unpack(marks)) end
for namespace, list in pairs(cleaned) do redis.call('ZREM', behind_key(namespace), unpack(list)) end
count_bytes(bytes)
count_removed(removed)
for namespace, keys in pairs(unindexed) do keep_index(namespace, epoch, keys, {}) end
return table.concat(answer)
