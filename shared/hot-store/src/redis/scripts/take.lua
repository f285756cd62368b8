#!lua flags=allow-oom
-- Takes from limits, all or nothing, and notes which batches are held and which have ended. KEYS: one per limit. ARGV:
-- rows asked for (0: nothing is), the permit, its lease in microseconds, how many are held, how many have ended; per
-- limit its rate (0: none), how many may be unfinished (0: any number), r or t (rows or transactions count); per held
-- one its permit and rows; per ended one its permit, rows and how long ago in microseconds. Answers 0 and the time until
-- the next batch is due; 1 and the time to wait; or 2: as much as may be unfinished is.
--
-- A limit is a hash: `at`, `n` and `rate` of the last grant (rather than the next moment allowed, so that a raised limit
-- holds at once), `inc`; `p` and a permit: until when, amount; `w` and a permit: since when it waits for another's end, and
-- when it asked last; `f` and a moment: what ended then. Moments that lie ahead are those of a clock that stepped back.
local WINDOW, STEP, LATE, PATIENT = 1000000, 10000, 50000, 75000
local asked, permit, lease = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local held, ended = tonumber(ARGV[4]), tonumber(ARGV[5])
local held_at = 5 + 3 * #KEYS
local ended_at = held_at + 2 * held
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local live = live_incarnation()
local function number(n) return string.format('%.0f', n) end
local function step(at) return math.ceil(at / STEP) * STEP end

local function meter(i)
  local key, rate, most, unit = KEYS[i], tonumber(ARGV[3 + 3 * i]), tonumber(ARGV[4 + 3 * i]), ARGV[5 + 3 * i]
  local function amount_of(rows) return unit == 't' and 1 or tonumber(rows) end
  local amount = amount_of(math.max(asked, 1))
  local fields, permits, finished, waiting = {}, {}, {}, {}
  local sets, gone, held_until = {}, {}, {}
  local function set(field, value)
    sets[#sets + 1] = field
    sets[#sets + 1] = value
  end
  local function finish(at, n)
    at = step(math.min(at, now))
    if at + WINDOW > now then
      finished[at] = (finished[at] or 0) + n
      set('f' .. number(at), finished[at])
    end
  end
  -- Written by store(), if it is still a permit then: what is renewed or moved here may end in the same call.
  local function hold(id, until_, n)
    permits[id] = n
    held_until[id] = until_
  end

  local stored = redis.call('HGETALL', key)
  for j = 1, #stored, 2 do fields[stored[j]] = stored[j + 1] end
  local known = fields['inc'] == live
  local last = {at = tonumber(fields['at']), n = tonumber(fields['n']), rate = tonumber(fields['rate'])}
  if known then
    for field, value in pairs(fields) do
      local kind, rest = string.sub(field, 1, 1), string.sub(field, 2)
      if kind == 'f' and tonumber(rest) and tonumber(rest) <= now + STEP then
        finished[tonumber(rest)] = tonumber(value)
      end
    end
    for field, value in pairs(fields) do
      local kind, rest = string.sub(field, 1, 1), string.sub(field, 2)
      local moment = tonumber(rest)
      if kind == 'f' and moment and moment > now + STEP then
        gone[#gone + 1] = field
        finish(now, tonumber(value))
      elseif kind == 'f' and moment and moment + WINDOW <= now then
        gone[#gone + 1] = field
        finished[moment] = nil
      elseif kind == 'p' then
        local space = string.find(value, ' ', 1, true)
        local until_, n = tonumber(string.sub(value, 1, space - 1)), tonumber(string.sub(value, space + 1))
        if until_ <= now then
          gone[#gone + 1] = field
          finish(until_, n)
        elseif until_ > now + lease then
          hold(rest, now + lease, n)
        else
          permits[rest] = n
        end
      elseif kind == 'w' then
        local space = string.find(value, ' ', 1, true)
        local since, asked_at = tonumber(string.sub(value, 1, space - 1)), tonumber(string.sub(value, space + 1))
        if asked_at > now or asked_at + PATIENT <= now then
          gone[#gone + 1] = field
        else
          waiting[rest] = since
        end
      end
    end
  else
    redis.call('DEL', key)
    last = {at = now, n = amount, rate = rate}
    set('inc', live)
    if rate > 0 then finish(now, rate + amount) end
  end
  if not known or last.at > now then
    last.at = now
    set('at', number(now))
    set('n', last.n)
    set('rate', last.rate)
  end
  for j = 1, ended do
    local at = ended_at + 3 * (j - 1)
    local id = ARGV[at + 1]
    if permits[id] then
      permits[id] = nil
      gone[#gone + 1] = 'p' .. id
    end
    finish(now - tonumber(ARGV[at + 3]), amount_of(ARGV[at + 2]))
  end
  for j = 1, held do
    local at = held_at + 2 * (j - 1)
    hold(ARGV[at + 1], now + lease, amount_of(ARGV[at + 2]))
  end
  local function due()
    local fastest = math.max(rate, last.rate)
    if fastest <= 0 then return 0 end
    return last.at + math.ceil(last.n * 1000000 / fastest)
  end
  -- How long it takes until the limit lets the batch pass; nothing if time alone does not bring it about.
  local function wait()
    -- The batch itself may add a twentieth of a second's worth, or one; what it has beyond that must find room.
    local beyond = math.max(0, amount - math.max(rate / 20, 1))
    local count, excess = 0, -math.max(0, rate - beyond)
    for _, n in pairs(permits) do
      count = count + 1
      excess = excess + n
    end
    -- Who waits for longer goes first: or whoever ends one batch and asks for the next in one call would keep all others out.
    for other, since in pairs(waiting) do
      local mine = waiting[permit] or now
      if other ~= permit and (since < mine or since == mine and other < permit) then count = count + 1 end
    end
    if most > 0 and count >= most then return nil end
    if rate == 0 then return 0 end
    if excess > 0 then return nil end
    local moments = {}
    for moment, n in pairs(finished) do
      moments[#moments + 1] = moment
      excess = excess + n
    end
    table.sort(moments)
    local wait = due() - now
    for _, moment in ipairs(moments) do
      if excess <= 0 then break end
      excess = excess - finished[moment]
      wait = math.max(wait, moment + WINDOW - now)
    end
    return wait
  end
  local function grant()
    hold(permit, now + lease, amount)
    last = {at = math.max(due(), now - LATE), n = amount, rate = rate}
    set('at', number(last.at))
    set('n', amount)
    set('rate', rate)
    return rate == 0 and 0 or due() - now
  end
  local function queue()
    if most == 0 then return end
    waiting[permit] = waiting[permit] or now
    set('w' .. permit, number(waiting[permit]) .. ' ' .. number(now))
  end
  local function leave()
    if waiting[permit] then gone[#gone + 1] = 'w' .. permit end
  end
  local function store()
    call_with('HDEL', key, gone)
    for id, until_ in pairs(held_until) do
      if permits[id] then set('p' .. id, number(until_) .. ' ' .. permits[id]) end
    end
    call_with('HSET', key, sets)
  end
  return {wait = wait, grant = grant, queue = queue, leave = leave, store = store}
end

local meters, wait, busy = {}, 0, false
for i = 1, #KEYS do
  meters[i] = meter(i)
  local needed = meters[i].wait()
  if needed then wait = math.max(wait, needed) else busy = true end
end
local answer = {0, 0}
if asked == 0 then answer = {0, 0}
elseif busy then
  answer = {2, 0}
  for i = 1, #meters do meters[i].queue() end
elseif wait > 0 then
  answer = {1, math.min(wait, 3600000000)}
  for i = 1, #meters do meters[i].leave() end
else
  for i = 1, #meters do meters[i].leave() end
  for i = 1, #meters do answer[2] = math.max(answer[2], math.min(meters[i].grant(), 3600000000)) end
end
for i = 1, #meters do meters[i].store() end
return answer
