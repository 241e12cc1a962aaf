-- Tell everyone about a release: the reload message, the result, and last its number.
-- A script that fails halfway keeps what it did, so everything is checked before the first write.
-- KEYS[1] reloads   KEYS[2] results   KEYS[3] mark of this result   KEYS[4] release
-- ARGV[1] number    ARGV[2] release event   ARGV[3] result event or ''   ARGV[4] field   ARGV[5] mark's ms
for position, wanted in ipairs({ 'stream', 'stream', 'string', 'string' }) do
  local found = redis.call('TYPE', KEYS[position]).ok
  if found ~= 'none' and found ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. KEYS[position] .. ' is a ' .. found)
  end
end

local number = tonumber(ARGV[1])
local newer = number > (tonumber(redis.call('GET', KEYS[4]) or '') or 0)

if newer then
  redis.call('XADD', KEYS[1], '*', ARGV[4], ARGV[2])
end
if ARGV[3] ~= '' and redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[5]) then
  redis.call('XADD', KEYS[2], '*', ARGV[4], ARGV[3])
end
if newer then
  redis.call('SET', KEYS[4], ARGV[1])
  return 1
end
return 0
