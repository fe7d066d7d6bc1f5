-- Stores a snapshot that was read from PostgreSQL some time ago.
-- ARGV: key, reservation, version, "<version> <body>", life in s.
-- Only where the reader's reservation or an older snapshot still stands: a commit or a flush that came
-- between has taken it away, and then what was read may be old.
local found = redis.call("GET", ARGV[1])
if found then
    local stored = tonumber(string.match(found, "^%d+"))
    if found == ARGV[2] or (stored and stored < tonumber(ARGV[3])) then
        redis.call("SET", ARGV[1], ARGV[4], "EX", ARGV[5])
    end
end
return 1
