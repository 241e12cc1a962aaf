-- Take the lease, or take it again: the reply to the first attempt may have been lost.
-- KEYS[1] lease   ARGV[1] owner   ARGV[2] milliseconds
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
