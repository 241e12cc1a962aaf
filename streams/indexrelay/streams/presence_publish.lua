-- Say what a member's state is, and until when; forget members whose time is over.
-- The server's own clock decides, so a client's clock that is off does nothing.
-- KEYS[1] index   KEYS[2] state   ARGV[1] member   ARGV[2] state   ARGV[3] milliseconds
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local indexed = redis.pcall('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
if type(indexed) == 'table' and indexed.err then
  return redis.error_reply(indexed.err .. ' (' .. KEYS[1] .. ')')
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
