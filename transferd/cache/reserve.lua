-- Reserves the place of a snapshot before a reader reads it from PostgreSQL.
-- ARGV: key, reservation ("l" and a random number), its TTL in ms.
-- Does not replace a snapshot or another reader's reservation. This code has not written any other
-- value.
local found = redis.call("GET", ARGV[1])
if not found or not (string.match(found, "^%d+ ") or string.match(found, "^l")) then
    redis.call("SET", ARGV[1], ARGV[2], "PX", ARGV[3])
end
return 1
