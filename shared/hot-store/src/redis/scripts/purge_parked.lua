#!lua flags=allow-oom
-- Removes a parked record. KEYS: header, record. ARGV: the version. Answers 1 if it was parked at that version.
local epoch, lowest, _, _, indexed = open_shard(KEYS[1])
if not epoch then return CLOSED end
local kind, version, _, parked = slot(redis.call('GETRANGE', KEYS[2], 0, HEAD_END), epoch, lowest)
if not (is_image(kind) and parked and version == tonumber(ARGV[1])) then return 0 end
local name = string.sub(KEYS[2], NAME_AT)
local namespace = namespace_of(name)
redis.call('ZREM', parked_key(namespace), name)
if indexed then keep_index(namespace, epoch, {string.sub(name, #namespace + 2)}, {}) end
redis.call('DEL', KEYS[2])
return 1
