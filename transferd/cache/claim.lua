-- Claims all idempotency keys of a group in one round trip.
-- ARGV: the claim to write, its TTL in ms, the keys (one per line; a key contains no control character).
-- Returns a string per key: "" claimed by this replica, "b" claimed by another replica, "r..." the replay.
local answers = {}
for key in string.gmatch(ARGV[3], "[^\n]+") do
    local found = redis.call("GET", key)
    if not found or found == ARGV[1] then
        redis.call("SET", key, ARGV[1], "PX", ARGV[2])
        answers[#answers + 1] = ""
    elseif string.sub(found, 1, 1) == "c" then
        answers[#answers + 1] = "b"
    else
        answers[#answers + 1] = found
    end
end
return answers
