-- Stores a snapshot that was read from PostgreSQL some time ago.
-- ARGV: key, reservation, version, "<version> <body>", life in s.
-- Only over the reader's own reservation or an older snapshot: without either, a commit or a flush came
-- in between, and the snapshot may be stale.
local found = redis.call("GET", ARGV[1])
if found then
    local stored = tonumber(string.match(found, "^%d+"))
    if found == ARGV[2] or (stored and stored < tonumber(ARGV[3])) then
        redis.call("SET", ARGV[1], ARGV[4], "EX", ARGV[5])
    end
end
return 1
