-- Stores the snapshots and replays of a committed group and releases claims, in one round trip.
-- ARGV: TTL of a snapshot in s, TTL of a replay in s, snapshots, replays, claims to release.
-- Each of the last three is a text of pairs of lines: key and value. JSON contains no raw line feed.
-- The value of a snapshot is "<version> <body>". A snapshot never replaces a newer version, because
-- the groups of two replicas may arrive in any order. It replaces a reader's reservation.
local function lines(blob)
    return string.gmatch(blob, "([^\n]+)\n([^\n]+)")
end
for key, snapshot in lines(ARGV[3]) do
    local found = redis.call("GET", key)
    local stored = found and tonumber(string.match(found, "^%d+"))
    if not stored or stored <= tonumber(string.match(snapshot, "^%d+")) then
        redis.call("SET", key, snapshot, "EX", ARGV[1])
    end
end
for key, replay in lines(ARGV[4]) do
    redis.call("SET", key, replay, "EX", ARGV[2])
end
for key, claim in lines(ARGV[5]) do
    if redis.call("GET", key) == claim then
        redis.call("DEL", key)
    end
end
return 1
