-- Stores a snapshot that a reader has read from PostgreSQL.
-- ARGV: key, reservation, version, "<version> <body>", TTL in s.
-- Replaces only the reader's own reservation or an older snapshot. Without either, a commit or a flush
-- has happened since the reservation, and the snapshot may be stale.
local found = redis.call("GET", ARGV[1])
if found then
    local stored = tonumber(string.match(found, "^%d+"))
    if found == ARGV[2] or (stored and stored < tonumber(ARGV[3])) then
        redis.call("SET", ARGV[1], ARGV[4], "EX", ARGV[5])
    end
end
return 1
