-- Reserves the place of a snapshot before PostgreSQL is read for it.
-- ARGV: key, reservation ("l" and something unique), its life in ms.
-- A snapshot or another reader's reservation stays; any other value is not of this code.
local found = redis.call("GET", ARGV[1])
if not found or not (string.match(found, "^%d+ ") or string.match(found, "^l")) then
    redis.call("SET", ARGV[1], ARGV[2], "PX", ARGV[3])
end
return 1
