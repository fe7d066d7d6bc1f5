-- wrk: POST /transfers. Arguments after --: a file of "source destination" lines, which are used in
-- order, and the prefix of this run's keys. A line may end with the token of an API key.
local pairs, tokens, run, count = {}, {}, "", 0

function init(args)
  for line in io.lines(args[1]) do
    local source, destination, token = line:match("(%S+) (%S+) ?(%S*)")
    tokens[#pairs + 1] = token ~= "" and "Bearer " .. token or nil
    pairs[#pairs + 1] = '{"source_wallet_id":"' .. source .. '","destination_wallet_id":"'
      .. destination .. '","amount":1,"currency":"USD"}'
  end
  run = args[2]
  math.randomseed(os.time())
  count = math.random(#pairs)
end

function request()
  count = count + 1
  local number = count % #pairs + 1
  return wrk.format("POST", "/transfers",
    { ["Content-Type"] = "application/json", ["Idempotency-Key"] = run .. "-" .. count,
      ["Authorization"] = tokens[number] },
    pairs[number])
end
