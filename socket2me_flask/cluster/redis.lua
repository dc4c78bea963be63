-- Scripts: what must be atomic in Redis, called as `EVALSHA sha 0 script argument...`.
--
-- Of each token:
--   s2m:token:T    hash    ttl, expires_at, secret, mode, mailbox, verify, listeners; process, client, client_mode: the process that has its client;
--                          forwarded, refused, last: what was counted. Redis lets it expire.
--   s2m:waiting:T  set     processes that hold calls for it until its client comes
--   s2m:groups:T   hash    process -> mode, of the processes that have listeners of a token that may have several
--   s2m:listeners:T hash   id of such a listener -> process that has it
-- and, if it is a name:
--   s2m:name:T     hash    secret, owner, grace_ms: how long it is held after its end. Redis lets it expire then.
-- and of its mailbox:
--   s2m:callers:T  set     processes whose callers wait for an acknowledgement
--   s2m:events:T   stream  the calls, by number
--   s2m:box:T      hash    id of an event -> its number, size, attempts, whether it is a dead letter, when it was received
--   s2m:bytes:T    number  the sum of the sizes
--   s2m:due:T      zset    id -> number, of those that are no dead letters
--   s2m:positions:T hash   listener -> number of the event up to which it has all, if all listeners receive each event
--   s2m:claims:T   hash    id -> process that has it, if one listener receives each event
-- and of its history:
--   s2m:history:T  hash    position: of the last change; requests, bytes, dropped; floor: the position of the latest
--                          request that was dropped for a bound
--   s2m:calls:T    zset    id of a request -> its position
--   s2m:changes:T  zset    "position id" -> position of the last entry of a timeline that was written at once
--   s2m:call:T:I   hash    head, body, cost, position; status, ms, outcome, response: what its caller was answered; e1,
--                          e2...: the entries whose last has that position
--   s2m:watchers:T set     processes that are notified of each change
-- Of all:
--   s2m:calls      zset    "id token" of a request of a history -> when it was received
--   s2m:history    number  bytes in all histories
--   s2m:names      zset    name -> when it is free, in ms of Redis's clock; s2m:names:O those of an owner
--   s2m:tokens     zset    token -> when it expires, in ms of Redis's clock
--   s2m:ages       zset    "id token" -> when the event was received
--   s2m:seen       zset    "listener token" -> when a listener with a position was last connected, by Redis's clock
--   s2m:bytes, s2m:sequence  bytes in all mailboxes; the last number
-- and of each process s2m:lease:P, which expires unless it is prolonged, and its channel s2m:process:P.
--
-- Relays of several versions may share all of this. A field of a hash, of an entry of the stream or of a packed state
-- that a version does not know is skipped, and left as it is. FIELDS, FORMER and READS_NAMES come from messages.py.

local call = redis.call
local scripts = {}

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function exists(token)
  return call('EXISTS', 's2m:token:' .. token) == 1
end

local function lives(process)
  return process and call('EXISTS', 's2m:lease:' .. process) == 1
end

-- Send a process a message in the form that it reads (messages.py). Returns whether it was received.
local function post(process, kind, ...)
  local values, message = {...}, {FORMER[kind] or kind, ...}
  if string.sub(process, 1, 1) == READS_NAMES then
    local fields = {}
    for at, name in ipairs(FIELDS[kind]) do fields[name] = values[at] end
    message = {kind, fields}
  end
  return call('PUBLISH', 's2m:process:' .. process, cmsgpack.pack({message})) > 0
end

local function owner(token)
  return call('HGET', 's2m:token:' .. token, 'process')
end

-- Send a message to the processes that have clients of a token, but for the one that asks.
local function post_to_owner(token, asking, ...)
  local process = owner(token)
  if process and process ~= asking then post(process, ...) end
  for _, other in ipairs(call('HKEYS', 's2m:groups:' .. token)) do
    if other ~= asking then post(other, ...) end
  end
end

-- The processes that live and have listeners of a token, each with the mode of their callers.
local function groups(token)
  local found, key = {}, 's2m:groups:' .. token
  local flat = call('HGETALL', key)
  for at = 1, #flat, 2 do
    if lives(flat[at]) then
      found[#found + 1], found[#found + 2] = flat[at], flat[at + 1]
    else
      call('HDEL', key, flat[at])
    end
  end
  return found
end

-- Send a message to the processes of a set, and delete the set.
local function post_to_all(set, asking, ...)
  for _, process in ipairs(call('SMEMBERS', set)) do
    if process ~= asking then post(process, ...) end
  end
  call('DEL', set)
end

-- The token, how long it has to live, where its client is: nowhere if that process is gone; and where its listeners are,
-- if it may have several.
local function record(token)
  local key = 's2m:token:' .. token
  local found = call('HMGET', key, 'ttl', 'expires_at', 'secret', 'mode', 'mailbox', 'process', 'client', 'client_mode',
    'forwarded', 'refused', 'last', 'inspect', 'verify', 'listeners')
  if not found[1] then return false end
  if not lives(found[6]) then found[6] = false end
  found[12], found[13], found[14], found[15] = call('PTTL', key), found[12], found[13], found[14]
  found[16] = found[15] and groups(token)
  return found
end

-- Mailboxes

local function state(token, id)
  local packed = call('HGET', 's2m:box:' .. token, id)
  return packed and cmsgpack.unpack(packed)
end

local function keep_state(token, id, event)
  call('HSET', 's2m:box:' .. token, id, cmsgpack.pack(event))
end

local function drop_event(token, id)
  local event = state(token, id)
  if not event then return 0 end
  local box = 's2m:box:' .. token
  call('HDEL', box, id)
  call('ZREM', 's2m:due:' .. token, id)
  call('ZREM', 's2m:ages', id .. ' ' .. token)
  call('HDEL', 's2m:claims:' .. token, id)
  call('DECRBY', 's2m:bytes', event.size)
  if call('EXISTS', box) == 0 then
    call('DEL', 's2m:bytes:' .. token, 's2m:events:' .. token)
  else
    call('DECRBY', 's2m:bytes:' .. token, event.size)
    call('XDEL', 's2m:events:' .. token, event.number .. '-0')
  end
  return 1
end

-- Returns how many events there were.
local function drop_mailbox(token)
  local ids = call('HKEYS', 's2m:box:' .. token)
  for _, id in ipairs(ids) do call('ZREM', 's2m:ages', id .. ' ' .. token) end
  call('DECRBY', 's2m:bytes', call('GET', 's2m:bytes:' .. token) or 0)
  for _, listener in ipairs(call('HKEYS', 's2m:positions:' .. token)) do
    call('ZREM', 's2m:seen', listener .. ' ' .. token)
  end
  call('UNLINK', 's2m:box:' .. token, 's2m:bytes:' .. token, 's2m:events:' .. token, 's2m:due:' .. token,
    's2m:positions:' .. token, 's2m:claims:' .. token)
  return #ids
end

-- Histories

local function call_key(token, id)
  return 's2m:call:' .. token .. ':' .. id
end

local function drop_call(token, id)
  local key, history = call_key(token, id), 's2m:history:' .. token
  local cost = call('HGET', key, 'cost')
  if not cost then return 0 end
  for _, field in ipairs(call('HKEYS', key)) do
    local position = string.match(field, '^e(%d+)$')
    if position then call('ZREM', 's2m:changes:' .. token, position .. ' ' .. id) end
  end
  call('UNLINK', key)
  call('ZREM', 's2m:calls:' .. token, id)
  call('ZREM', 's2m:calls', id .. ' ' .. token)
  call('HINCRBY', history, 'bytes', -cost)
  call('DECRBY', 's2m:history', cost)
  return 1
end

-- Drop a request for a bound.
local function drop_beyond(token, id)
  local history, position = 's2m:history:' .. token, call('HGET', call_key(token, id), 'position')
  if drop_call(token, id) == 0 then return 0 end
  if tonumber(position) > tonumber(call('HGET', history, 'floor') or 0) then call('HSET', history, 'floor', position) end
  call('HINCRBY', history, 'dropped', 1)
  return 1
end

local function drop_oldest(token)
  return drop_beyond(token, call('ZRANGE', 's2m:calls:' .. token, 0, 0)[1])
end

local function history_bytes(token)
  return tonumber(call('HGET', 's2m:history:' .. token, 'bytes') or 0)
end

local function keep_within(token, max_requests, max_bytes, total_bytes)
  local dropped, calls = 0, 's2m:calls:' .. token
  max_requests, max_bytes, total_bytes = tonumber(max_requests), tonumber(max_bytes), tonumber(total_bytes)
  while (max_requests > 0 and call('ZCARD', calls) > max_requests)
    or (max_bytes > 0 and history_bytes(token) > max_bytes and call('ZCARD', calls) > 0) do
    dropped = dropped + drop_oldest(token)
  end
  while total_bytes > 0 and tonumber(call('GET', 's2m:history') or 0) > total_bytes do
    local oldest = call('ZRANGE', 's2m:calls', 0, 0)[1]
    if not oldest then break end
    local id, other = string.match(oldest, '(%S+) (%S+)')
    if history_bytes(token) > history_bytes(other) and call('ZCARD', calls) > 1 then other = token end
    if other == token then
      dropped = dropped + drop_oldest(token)
    else
      dropped = dropped + drop_beyond(other, id)
      call('ZREM', 's2m:calls', oldest)
    end
  end
  return dropped
end

local function drop_history(token)
  local ids = call('ZRANGE', 's2m:calls:' .. token, 0, -1)
  if #ids > 0 then
    for _, id in ipairs(ids) do
      call('UNLINK', call_key(token, id))
      call('ZREM', 's2m:calls', id .. ' ' .. token)
    end
    call('DECRBY', 's2m:history', history_bytes(token))
    call('HSET', 's2m:history:' .. token, 'bytes', 0)
    call('UNLINK', 's2m:calls:' .. token, 's2m:changes:' .. token)
  end
  return #ids
end

-- Names

-- Hold a name, if it is one, for its grace after its token has expired.
local function extend_name(token, ttl_ms)
  local found = call('HMGET', 's2m:name:' .. token, 'owner', 'grace_ms')
  if not found[1] then return end
  local of_owner, held_ms = 's2m:names:' .. found[1], ttl_ms + found[2]
  call('PEXPIRE', 's2m:name:' .. token, held_ms)
  call('ZADD', 's2m:names', now_ms() + held_ms, token)
  call('ZADD', of_owner, now_ms() + held_ms, token)
  if call('PTTL', of_owner) < held_ms then call('PEXPIRE', of_owner, held_ms) end
end

local function free_name(token)
  local owner = call('HGET', 's2m:name:' .. token, 'owner')
  if not owner then return end
  call('DEL', 's2m:name:' .. token)
  call('ZREM', 's2m:names', token)
  call('ZREM', 's2m:names:' .. owner, token)
end

-- How many names a sorted set has that are held.
local function names_in(set)
  call('ZREMRANGEBYSCORE', set, '-inf', now_ms())
  return call('ZCARD', set)
end

local function drop_token(token, asking)
  post_to_all('s2m:callers:' .. token, asking, 'ended', token)
  call('DEL', 's2m:token:' .. token, 's2m:waiting:' .. token, 's2m:groups:' .. token, 's2m:listeners:' .. token)
  call('ZREM', 's2m:tokens', token)
  local dropped = drop_history(token)
  call('DEL', 's2m:history:' .. token, 's2m:watchers:' .. token)
  return dropped + drop_mailbox(token)
end

-- An event as it is returned: id, attempts, whether it is a dead letter, size, when it was received; and what was kept.
local function shown(token, id, event, with_content)
  local result = {id, event.attempts, event.aside, event.size, event.received_at}
  if with_content then
    local entry = call('XRANGE', 's2m:events:' .. token, event.number .. '-0', event.number .. '-0')[1]
    local fields = entry[2]
    for at = 1, #fields, 2 do
      if fields[at] == 'content' then result[6] = fields[at + 1] end
      if fields[at] == 'body' then result[7] = fields[at + 1] end
      if fields[at] == 'more' then result[8] = fields[at + 1] end
    end
  end
  return result
end

-- Tokens

local function is_full(max_tokens)
  return tonumber(max_tokens) > 0 and call('ZCOUNT', 's2m:tokens', now_ms(), '+inf') >= tonumber(max_tokens)
end

function scripts.add(token, ttl_ms, max_tokens, ...)
  local now = now_ms()
  if is_full(max_tokens) then return 0 end
  call('HSET', 's2m:token:' .. token, ...)
  call('PEXPIRE', 's2m:token:' .. token, ttl_ms)
  call('ZADD', 's2m:tokens', now + ttl_ms, token)
  return 1
end

-- The token of a name that lives and has the secret `given`; `again` if it is in its grace and has it, else `new`.
function scripts.claim_name(token, process, ttl_ms, max_tokens, grace_ms, given, new, owner, quota, ...)
  local name = 's2m:name:' .. token
  local secret = call('HGET', name, 'secret')
  if secret and secret ~= given then return 'taken' end
  if secret and exists(token) then return record(token) end
  if not secret and new == '' then return 'refused' end
  if not secret and names_in('s2m:names:' .. owner) >= tonumber(quota) then return 'quota' end
  local is_over = not secret and tonumber(max_tokens) > 0 and names_in('s2m:names') >= tonumber(max_tokens)
  if is_over or is_full(max_tokens) then return 'full' end
  if not secret then
    drop_token(token, process)  -- an earlier owner may have left a mailbox that was not swept yet
    call('HSET', name, 'secret', new, 'owner', owner)
  end
  call('HSET', name, 'grace_ms', grace_ms)
  scripts.add(token, ttl_ms, 0, 'secret', secret or new, ...)
  extend_name(token, ttl_ms)
  return secret and 'again' or 'new'
end

function scripts.get(token)
  return record(token)
end

function scripts.refresh(token, expires_at, process)
  local key = 's2m:token:' .. token
  local ttl = call('HGET', key, 'ttl')
  if not ttl then return false end
  local ttl_ms = math.floor(ttl * 1000)
  call('HSET', key, 'expires_at', expires_at)
  call('PEXPIRE', key, ttl_ms)
  call('ZADD', 's2m:tokens', now_ms() + ttl_ms, token)
  extend_name(token, ttl_ms)
  post_to_owner(token, process, 'refreshed', token)
  return record(token)
end

function scripts.remove(token, process)
  if not exists(token) then return 0 end
  post_to_owner(token, process, 'ended', token)
  post_to_all('s2m:waiting:' .. token, process, 'ended', token)
  drop_token(token, process)
  free_name(token)
  return 1
end

-- Let a name go, if it has that secret, or whatever it has if none is given.
function scripts.release_name(token, process, given)
  local secret = call('HGET', 's2m:name:' .. token, 'secret')
  if not secret or (given ~= '' and secret ~= given) then return 0 end
  scripts.remove(token, process)
  free_name(token)
  return 1
end

-- Drop what is left of a token that has expired.
function scripts.purge(token)
  if exists(token) then return 0 end
  drop_token(token)
  return 1
end

-- Drop tokens that have expired, until so many tokens or events are dropped.
function scripts.expired(limit)
  local expired, dropped = {}, 0
  for _, token in ipairs(call('ZRANGEBYSCORE', 's2m:tokens', '-inf', now_ms(), 'LIMIT', 0, limit)) do
    if not exists(token) then
      dropped = dropped + 1 + drop_token(token)
      expired[#expired + 1] = token
    end
    if dropped >= tonumber(limit) then break end
  end
  return expired
end

function scripts.count(token, forwarded, refused, last)
  if not exists(token) then return 0 end
  local key = 's2m:token:' .. token
  call('HINCRBY', key, 'forwarded', forwarded)
  call('HINCRBY', key, 'refused', refused)
  if last ~= '' then call('HSET', key, 'last', last) end
  return 1
end

-- Clients

-- A client has come: the newest wins, or a process has listeners of a token that may have several. With `replaces` 0 it was
-- here before, with this secret, and only wins if no other has come; a name may be another's by now.
function scripts.attach(token, process, client, mode, replaces, secret)
  if not exists(token) then return false end
  local key = 's2m:token:' .. token
  if secret and secret ~= '' and call('HGET', key, 'secret') ~= secret then return false end
  if call('HEXISTS', key, 'listeners') == 1 then
    call('HSET', 's2m:groups:' .. token, process, mode)
    post_to_all('s2m:waiting:' .. token, process, 'arrived', token)
    return record(token)
  end
  local old = call('HMGET', key, 'process', 'client')
  local is_elsewhere = old[1] and old[1] ~= process
  if replaces == '0' and is_elsewhere and lives(old[1]) then return 'replaced' end
  call('HSET', key, 'process', process, 'client', client, 'client_mode', mode)
  if is_elsewhere then post(old[1], 'displaced', token, old[2]) end
  post_to_all('s2m:waiting:' .. token, process, 'arrived', token)
  return record(token)
end

-- A client has left, or is said not to be there: unless another has come. With `unless_alive` 1 it was its process that
-- could not be reached, and it stays if that can be reached now.
function scripts.detach(token, process, client, unless_alive)
  local key = 's2m:token:' .. token
  local current = call('HMGET', key, 'process', 'client')
  local is_back = unless_alive == '1' and call('PUBLISH', 's2m:process:' .. process, cmsgpack.pack({})) > 0
  if call('HEXISTS', key, 'listeners') == 1 and not is_back then
    call('HDEL', 's2m:groups:' .. token, process)
    if #groups(token) == 0 then post_to_all('s2m:callers:' .. token, process, 'left', token) end
  elseif current[1] == process and current[2] == client and not is_back then
    call('HDEL', key, 'process', 'client', 'client_mode')
    post_to_all('s2m:callers:' .. token, process, 'left', token)
  end
  return record(token)
end

-- Wait for a client, unless one is there: then where it is.
function scripts.watch(token, process, wait_ms)
  local found = record(token)
  if found and (not found[6] or found[6] == process) and #(found[16] or {}) == 0 then
    local waiting = 's2m:waiting:' .. token
    call('SADD', waiting, process)
    if call('PTTL', waiting) < tonumber(wait_ms) then call('PEXPIRE', waiting, wait_ms) end
  end
  return found
end

-- A listener has come to a token that may have several. It replaces one with the same id at another process.
function scripts.join(token, listener, process, most)
  local key = 's2m:listeners:' .. token
  local old = call('HGET', key, listener)
  if not old and call('HLEN', key) >= tonumber(most) then
    local flat = call('HGETALL', key)
    for at = 1, #flat, 2 do
      if not lives(flat[at + 1]) then call('HDEL', key, flat[at]) end
    end
    if call('HLEN', key) >= tonumber(most) then return 'full' end
  end
  call('HSET', key, listener, process)
  if old and old ~= process and lives(old) then post(old, 'replaced', token, listener) end
  return 1
end

function scripts.leave(token, listener, process)
  local key = 's2m:listeners:' .. token
  if call('HGET', key, listener) == process then call('HDEL', key, listener) end
  return 1
end

-- Whether a process serves. One that was killed has no subscription any more.
local function serves(process)
  return lives(process) and call('PUBLISH', 's2m:process:' .. process, cmsgpack.pack({})) > 0
end

-- Have a listener be one of this process, unless another has it. It joins after that.
function scripts.claim_listener(token, listener, process)
  local key = 's2m:listeners:' .. token
  local other = call('HGET', key, listener)
  if other and other ~= process and serves(other) then return 0 end
  call('HSET', key, listener, process)
  return 1
end

-- The listeners of a token that other processes have.
function scripts.listeners_elsewhere(token, process)
  local found, are_there, flat = {}, {[process] = false}, call('HGETALL', 's2m:listeners:' .. token)
  for at = 1, #flat, 2 do
    local other = flat[at + 1]
    if are_there[other] == nil then
      are_there[other] = serves(other)
    end
    if are_there[other] then found[#found + 1] = flat[at] end
  end
  return found
end

-- The process that has a listener.
function scripts.place(token, listener)
  return call('HGET', 's2m:listeners:' .. token, listener)
end

-- Events

-- Keep an event whose caller waits so long for an acknowledgement.
function scripts.put(token, process, wait_ms, id, received_at, size, content, body, more, max_events, max_bytes,
    total_bytes, small_bytes)
  local found = record(token)
  if not found then return 'unknown' end
  local function is_over(bound, value) return tonumber(bound) > 0 and value > tonumber(bound) end
  local bytes = call('GET', 's2m:bytes:' .. token) or 0
  if is_over(max_events, call('HLEN', 's2m:box:' .. token) + 1) or is_over(max_bytes, bytes + size) then
    return 'full'
  end
  -- The last tenth is for small mailboxes.
  if bytes + size > tonumber(small_bytes) then total_bytes = math.floor(total_bytes * 9 / 10) end
  if is_over(total_bytes, (call('GET', 's2m:bytes') or 0) + size) then return 'all full' end
  local number = call('INCR', 's2m:sequence')
  call('XADD', 's2m:events:' .. token, number .. '-0', 'content', content, 'body', body, 'more', more)
  keep_state(token, id, {number = number, size = tonumber(size), attempts = 0, aside = 0, received_at = received_at})
  call('INCRBY', 's2m:bytes:' .. token, size)
  call('INCRBY', 's2m:bytes', size)
  call('ZADD', 's2m:due:' .. token, number, id)
  call('ZADD', 's2m:ages', received_at, id .. ' ' .. token)
  if found[6] and found[6] ~= process and post(found[6], 'kick', token, found[7]) then
    call('SADD', 's2m:callers:' .. token, process)
    call('PEXPIRE', 's2m:callers:' .. token, wait_ms)
    return {found[8]}
  end
  -- Every process that has listeners looks for the event. Its caller waits if one of them can acknowledge it.
  local best, flat = false, found[16] or {}
  for at = 1, #flat, 2 do
    if flat[at] ~= process and post(flat[at], 'kick', token, '')
      and best ~= 'reply' and (best ~= 'ack' or flat[at + 1] ~= 'notify') then
      best = flat[at + 1]
    end
  end
  if best then
    call('SADD', 's2m:callers:' .. token, process)
    call('PEXPIRE', 's2m:callers:' .. token, wait_ms)
    return {best}
  end
  return {}
end

-- The oldest events, as many as may be, but no more than one beyond so many bytes. Those whose ids, with spaces between
-- them, are known come without their content, and count for nothing.
-- Each comes with its number. With `after`, only those with a larger one.
function scripts.waiting(token, limit, bytes, known, after)
  local events, left, is_known = {}, tonumber(bytes), {}
  for id in string.gmatch(known, '%S+') do is_known[id] = true end
  local first = after == '' and '-inf' or '(' .. after
  for _, id in ipairs(call('ZRANGEBYSCORE', 's2m:due:' .. token, first, '+inf', 'LIMIT', 0, limit)) do
    local event = state(token, id)
    events[#events + 1] = {event.number, shown(token, id, event, not is_known[id])}
    if not is_known[id] then left = left - event.size end
    if left < 0 then break end
  end
  return events
end

-- The oldest events up to the first that is not known and that no other process has, which this one claims.
function scripts.claim(token, process, limit, known)
  local events, is_known, claims = {}, {}, 's2m:claims:' .. token
  for id in string.gmatch(known, '%S+') do is_known[id] = true end
  for _, id in ipairs(call('ZRANGE', 's2m:due:' .. token, 0, -1)) do
    local event = state(token, id)
    if is_known[id] then
      events[#events + 1] = {event.number, shown(token, id, event, false)}
    else
      local other = call('HGET', claims, id)
      if not other or other == process or not lives(other) then
        call('HSET', claims, id, process)
        events[#events + 1] = {event.number, shown(token, id, event, true)}
        break
      end
    end
    if #events >= tonumber(limit) then break end
  end
  return events
end

-- Let other processes claim an event.
function scripts.release(token, id, process)
  if call('HGET', 's2m:claims:' .. token, id) == process then
    call('HDEL', 's2m:claims:' .. token, id)
    local flat = groups(token)
    for at = 1, #flat, 2 do
      if flat[at] ~= process then post(flat[at], 'kick', token, '') end
    end
  end
  return 1
end

function scripts.find(token, id)
  local event = state(token, id)
  return event and shown(token, id, event, true)
end

-- All events, in no order, without their content; their numbers last.
function scripts.summary(token)
  local events = {}
  local flat = call('HGETALL', 's2m:box:' .. token)
  for at = 1, #flat, 2 do
    local event = cmsgpack.unpack(flat[at + 1])
    local row = shown(token, flat[at], event, false)
    row[6] = event.number
    events[#events + 1] = row
  end
  return events
end

function scripts.attempted(token, id)
  local event = state(token, id)
  if not event then return 0 end
  event.attempts = event.attempts + 1
  keep_state(token, id, event)
  return 1
end

function scripts.dead_letter(token, id)
  local event = state(token, id)
  if not event then return 0 end
  event.aside = 1
  keep_state(token, id, event)
  call('ZREM', 's2m:due:' .. token, id)
  call('HDEL', 's2m:claims:' .. token, id)
  return 1
end

-- A listener has failed at an event: it is a dead letter when all have passed it.
function scripts.fail(token, id)
  local event = state(token, id)
  if not event then return 0 end
  event.aside = 2
  keep_state(token, id, event)
  return 1
end

function scripts.redeliver(token, id, process)
  local event = state(token, id)
  if not event then return 0 end
  if event.aside ~= 0 and call('EXISTS', 's2m:positions:' .. token) == 1 then
    -- Listeners have passed it if one has failed at it: it becomes the next event.
    local stream, number = 's2m:events:' .. token, call('INCR', 's2m:sequence')
    local entry = call('XRANGE', stream, event.number .. '-0', event.number .. '-0')[1]
    call('XADD', stream, number .. '-0', unpack(entry[2]))
    call('XDEL', stream, event.number .. '-0')
    event.number = number
  end
  event.aside, event.attempts = 0, 0
  keep_state(token, id, event)
  call('ZADD', 's2m:due:' .. token, event.number, id)
  post_to_owner(token, process, 'retried', token, id)
  return 1
end

function scripts.acknowledge(token, id)
  return drop_event(token, id)
end

function scripts.delete(token, id, process)
  post_to_owner(token, process, 'deleted', token, id)
  return drop_event(token, id)
end

-- Positions of listeners

local function seen_now(token, listener)
  local time = call('TIME')
  call('ZADD', 's2m:seen', time[1] .. '.' .. string.format('%06d', time[2]), listener .. ' ' .. token)
end

-- Drop what all listeners have passed; what one has failed at becomes a dead letter.
local function drop_passed(token)
  local passed = false
  for _, position in ipairs(call('HVALS', 's2m:positions:' .. token)) do
    if not passed or tonumber(position) < passed then passed = tonumber(position) end
  end
  if not passed then return end
  for _, id in ipairs(call('ZRANGEBYSCORE', 's2m:due:' .. token, '-inf', passed)) do
    if state(token, id).aside == 2 then scripts.dead_letter(token, id) else drop_event(token, id) end
  end
end

local function drop_position(token, listener)
  call('HDEL', 's2m:positions:' .. token, listener)
  call('ZREM', 's2m:seen', listener .. ' ' .. token)
end

local function advance(token, listener, number)
  local position = call('HGET', 's2m:positions:' .. token, listener)
  if position and tonumber(number) > tonumber(position) then
    call('HSET', 's2m:positions:' .. token, listener, number)
  end
  return position
end

function scripts.number_of(token, id)
  local event = state(token, id)
  return event and event.number
end

-- The position of a listener, which has one from now on: a new one after the event `after`, unless that is ''. Those without ids of their own end with their processes.
function scripts.register(token, listener, most, after)
  local key = 's2m:positions:' .. token
  for _, other in ipairs(call('HKEYS', key)) do
    local process = string.match(other, '^~(.*)%.')
    if process and not lives(process) then drop_position(token, other) end
  end
  local position = call('HGET', key, listener)
  if not position then
    local others = call('HLEN', key)
    if others >= tonumber(most) then return 'full' end
    position = after ~= '' and after or others > 0 and call('GET', 's2m:sequence') or 0
    call('HSET', key, listener, position)
  end
  seen_now(token, listener)
  return tonumber(position)
end

function scripts.unregister(token, listener)
  drop_position(token, listener)
  drop_passed(token)
  return 1
end

function scripts.advance(token, listener, number)
  advance(token, listener, number)
  drop_passed(token)
  return 1
end

-- Listeners are connected now, and have these positions.
function scripts.touch(token, ...)
  local values = {...}
  for at = 1, #values, 2 do
    if advance(token, values[at], values[at + 1]) then seen_now(token, values[at]) end
  end
  drop_passed(token)
  return 1
end

-- When a listener that is away was there last.
function scripts.seen(token, listener, at)
  call('ZADD', 's2m:seen', 'XX', at, listener .. ' ' .. token)
  return 1
end

-- Of each listener its id, its position, when it was seen, and how many events it has not acknowledged.
function scripts.positions(token)
  local rows, flat = {}, call('HGETALL', 's2m:positions:' .. token)
  for at = 1, #flat, 2 do
    local seen_at = call('ZSCORE', 's2m:seen', flat[at] .. ' ' .. token)
    rows[#rows + 1] = {flat[at], tonumber(flat[at + 1]), seen_at,
      call('ZCOUNT', 's2m:due:' .. token, '(' .. flat[at + 1], '+inf')}
  end
  return rows
end

function scripts.drop_absent(seen_before, limit)
  local absent = call('ZRANGEBYSCORE', 's2m:seen', '-inf', '(' .. seen_before, 'LIMIT', 0, limit)
  for _, member in ipairs(absent) do
    local listener, token = string.match(member, '(%S+) (%S+)')
    drop_position(token, listener)
    drop_passed(token)
  end
  return #absent
end

-- Drop what a sorted set of ids and tokens has from before a time. Return how many there were, `limit` at most.
local function drop_older(set, received_before, limit, drop)
  local old = call('ZRANGEBYSCORE', set, '-inf', '(' .. received_before, 'LIMIT', 0, limit)
  for _, member in ipairs(old) do
    local id, token = string.match(member, '(%S+) (%S+)')
    drop(token, id)
    call('ZREM', set, member)
  end
  return #old
end

function scripts.drop_older(received_before, limit)
  return drop_older('s2m:ages', received_before, limit, drop_event)
end

-- Histories

-- Keep entries of a timeline and what they change, notify those that watch it, and drop what is beyond a bound.
local function keep_change(token, process, max_requests, max_bytes, total_bytes, id, cost, count, entries, status, ms,
    outcome, response)
  local key, history = call_key(token, id), 's2m:history:' .. token
  local position = call('HINCRBY', history, 'position', count)
  call('ZADD', 's2m:changes:' .. token, position, position .. ' ' .. id)
  call('HSET', key, 'e' .. position, entries)
  if response ~= '' then call('HSET', key, 'response', response) end
  if status ~= '' then call('HSET', key, 'status', status, 'ms', ms) end
  if outcome ~= '' and (outcome ~= 'kept' or call('HEXISTS', key, 'outcome') == 0) then
    call('HSET', key, 'outcome', outcome)
  end
  call('HINCRBY', key, 'cost', cost)
  call('HINCRBY', history, 'bytes', cost)
  call('INCRBY', 's2m:history', cost)
  local watchers = 's2m:watchers:' .. token
  for _, watcher in ipairs(call('SMEMBERS', watchers)) do
    if watcher ~= process and not post(watcher, 'changed', token) then call('SREM', watchers, watcher) end
  end
  return position
end

-- Returns how many requests were dropped.
function scripts.history_add(token, process, max_requests, max_bytes, total_bytes, id, cost, count, entries, status, ms,
    outcome, response, head, body, received_at)
  if not exists(token) then return 0 end
  local key = call_key(token, id)
  local last = keep_change(token, process, max_requests, max_bytes, total_bytes, id, cost, count, entries, status, ms,
    outcome, response)
  local position = last - count + 1
  call('HSET', key, 'head', head, 'body', body, 'position', position)
  call('ZADD', 's2m:calls:' .. token, position, id)
  call('ZADD', 's2m:calls', received_at, id .. ' ' .. token)
  return keep_within(token, max_requests, max_bytes, total_bytes)
end

function scripts.history_update(token, process, max_requests, max_bytes, total_bytes, id, ...)
  if call('EXISTS', call_key(token, id)) == 0 then return 0 end
  keep_change(token, process, max_requests, max_bytes, total_bytes, id, ...)
  return keep_within(token, max_requests, max_bytes, total_bytes)
end

-- A request without its timeline: head, position, status, ms, outcome; body and response, or nothing.
local function shown_call(token, id, with_body)
  local found = call('HMGET', call_key(token, id), 'head', 'position', 'status', 'ms', 'outcome')
  if not found[1] then return false end
  found[6], found[7] = false, false
  if with_body == '1' then
    found[6], found[7] = unpack(call('HMGET', call_key(token, id), 'body', 'response'))
  end
  return found
end

-- A request with its body, then entries in their order.
function scripts.history_find(token, id)
  local row = shown_call(token, id, '1')
  if not row then return false end
  local key, positions, result = call_key(token, id), {}, {row}
  for _, field in ipairs(call('HKEYS', key)) do
    local position = string.match(field, '^e(%d+)$')
    if position then positions[#positions + 1] = tonumber(position) end
  end
  table.sort(positions)
  for _, position in ipairs(positions) do
    result[#result + 1] = call('HGET', key, 'e' .. position)
  end
  return result
end

function scripts.history_position(token, id)
  if id == '' then return tonumber(call('HGET', 's2m:history:' .. token, 'position') or 0) end
  local position = call('ZSCORE', 's2m:calls:' .. token, id)
  return position and tonumber(position)
end

-- Requests between two positions, no more than one beyond so many bytes of bodies.
function scripts.history_page(token, after, before, oldest_first, count, with_body, bytes)
  local calls, ids, rows, left = 's2m:calls:' .. token, nil, {}, tonumber(bytes)
  if oldest_first == '1' then
    ids = call('ZRANGEBYSCORE', calls, after, before, 'LIMIT', 0, count)
  else
    ids = call('ZREVRANGEBYSCORE', calls, before, after, 'LIMIT', 0, count)
  end
  for _, id in ipairs(ids) do
    local row = shown_call(token, id, with_body)
    if row then
      rows[#rows + 1] = row
      if row[6] then left = left - #row[6] end
    end
    if left < 0 then break end
  end
  return rows
end

-- Changes after a position, each as its position, its entries and its request. False if one was dropped for a bound.
function scripts.history_changes(token, after, count, with_body, bytes)
  if tonumber(after) < tonumber(call('HGET', 's2m:history:' .. token, 'floor') or 0) then return false end
  local changes, left = {}, tonumber(bytes)
  for _, member in ipairs(call('ZRANGEBYSCORE', 's2m:changes:' .. token, '(' .. after, '+inf', 'LIMIT', 0, count)) do
    local position, id = string.match(member, '(%S+) (%S+)')
    local row = shown_call(token, id, with_body)
    changes[#changes + 1] = {position, row and call('HGET', call_key(token, id), 'e' .. position), row}
    if row and row[6] then left = left - #row[6] end
    if left < 0 then break end
  end
  return changes
end

function scripts.history_dropped(token)
  return tonumber(call('HGET', 's2m:history:' .. token, 'dropped') or 0)
end

function scripts.history_delete(token, id)
  if id ~= '' then return drop_call(token, id) end
  drop_history(token)
  return 1
end

function scripts.history_drop_older(received_before, limit)
  return drop_older('s2m:calls', received_before, limit, drop_beyond)
end

function scripts.history_watch(token, process, ms)
  local watchers = 's2m:watchers:' .. token
  call('SADD', watchers, process)
  call('PEXPIRE', watchers, ms)
  return 1
end

-- What all processes have: tokens, events, bytes of events; and when the oldest event was received that is no dead letter,
-- of which no more than so many are passed over.
function scripts.totals(most_dead)
  local oldest, flat = false, call('ZRANGE', 's2m:ages', 0, most_dead, 'WITHSCORES')
  for at = 1, #flat, 2 do
    local id, token = string.match(flat[at], '(%S+) (%S+)')
    local event = state(token, id)
    if (event and event.aside == 0) or at == 2 * most_dead + 1 then
      oldest = flat[at + 1]
      break
    end
  end
  return {call('ZCARD', 's2m:tokens'), call('ZCARD', 's2m:ages'), call('GET', 's2m:bytes'), oldest}
end

return scripts[ARGV[1]](unpack(ARGV, 2))
