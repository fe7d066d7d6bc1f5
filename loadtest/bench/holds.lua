-- wrk: POST /holds. Arguments after --: a file of "source destination" lines, which are used in order, and
-- the prefix of this run's keys.
local bodies, run, count = {}, "", 0

function init(args)
  for source, destination in io.open(args[1]):read("*a"):gmatch("(%S+) (%S+)") do
    bodies[#bodies + 1] = '{"source_wallet_id":"' .. source .. '","destination_wallet_id":"'
      .. destination .. '","amount":1,"currency":"USD"}'
  end
  run = args[2]
end

function request()
  count = count + 1
  return wrk.format("POST", "/holds",
    { ["Content-Type"] = "application/json", ["Idempotency-Key"] = run .. "-" .. count },
    bodies[count % #bodies + 1])
end
