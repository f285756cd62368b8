#!lua flags=allow-oom
-- Puts records back of which nothing is there, all of them or none, and then requests: so an empty store is filled, with
-- few commands. KEYS: header, dirty. ARGV: token, request window in ms, how many records, how many requests, the records'
-- namespace, their payloads' bytes; per record key, kind and version, `since` and payload; per record version and name; per
-- record up to where the database is behind, and name (left out where these are the versions); the requests' keys; per
-- request version (16 digits) and digest. No record comes twice.
local fields = redis.call('HMGET', KEYS[1], 'otok', 'oinc', 'oepoch')
if fields[1] ~= ARGV[1] or fields[2] ~= live_incarnation() or not fields[3] then return SUPERSEDED end
local HELD = {ok = 'HELD'}
if redis.call('EXISTS', BASE .. 'g') == 1 then return HELD end
local born = string.format('%010.0f', tonumber(fields[3]))
local records, requests = tonumber(ARGV[3]), tonumber(ARGV[4])
local marks = 7 + 3 * records
local last = #ARGV - 3 * requests

-- The images first: a mark that is missing is noticed, and one without an image would be none.
if records > 0 then
  local images = {}
  for i = 1, records do
    local at = 4 + 3 * i
    images[2 * i - 1] = ARGV[at]
    images[2 * i] = ARGV[at + 1] .. born .. ARGV[at + 2]
  end
  if redis.call('MSETNX', unpack(images)) == 0 then return HELD end
  redis.call('ZADD', KEYS[2], unpack(ARGV, marks, marks + 2 * records - 1))
  local behinds = marks + 2 * records
  if behinds > last then behinds = marks end
  redis.call('ZADD', behind_key(ARGV[5]), 'LT', unpack(ARGV, behinds, behinds + 2 * records - 1))
  count_bytes({[ARGV[5]] = tonumber(ARGV[6])})
end
if requests > 0 then
  -- At a point in time: one that begins now is written into the append-only file as one that ends then.
  local time = redis.call('TIME')
  local ends = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
  local call, values = redis.call, last + requests - 1
  for i = 1, requests do
    local key, at = ARGV[last + i], values + 2 * i
    local value = ARGV[at] .. born .. ARGV[at + 1]
    if not call('SET', key, value, 'PXAT', ends, 'NX') then
      local version = request_in(call('GET', key))
      if not version or version <= tonumber(ARGV[at]) then call('SET', key, value, 'PXAT', ends) end
    end
  end
end
return {ok = 'DONE'}
