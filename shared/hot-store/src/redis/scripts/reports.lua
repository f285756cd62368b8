#!lua flags=no-writes
-- The reports that have not expired. KEYS: index. ARGV: TTL in ms. Answers for each how old it is, in ms, and itself.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local listed = redis.call('ZRANGE', KEYS[1], string.format('(%.0f', now), '+inf', 'BYSCORE', 'WITHSCORES')
local answer = {}
for i = 1, #listed, 2 do
  local report = redis.call('GET', BASE .. 'r:' .. listed[i])
  if report then
    answer[#answer + 1] = math.max(ARGV[1] - (listed[i + 1] - now), 0)
    answer[#answer + 1] = report
  end
end
return answer
