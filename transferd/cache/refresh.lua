-- Stores what a group has committed, in one round trip.
-- ARGV: life of a snapshot in s, life of a replay in s, snapshots, replays, claims to release.
-- Each of the last three is a blob of lines; JSON holds no raw line feed. A snapshot is a key line and
-- a "<version> <body>" line, and is stored only over an older version: groups of two replicas may
-- arrive here in either order. A reader's reservation is replaced.
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
