-- wrk: POST /transfers/batch. Arguments after --: a file of "source destination" lines, the prefix
-- of this run's keys, and the number of transfers in each batch.
local pairs, run, size, count = {}, "", 0, 0

function init(args)
  for source, destination in io.open(args[1]):read("*a"):gmatch("(%S+) (%S+)") do
    pairs[#pairs + 1] = '{"source_wallet_id":"' .. source .. '","destination_wallet_id":"'
      .. destination .. '","amount":1,"currency":"USD"}'
  end
  run, size = args[2], tonumber(args[3])
end

function request()
  local transfers = {}
  for n = 1, size do
    transfers[n] = pairs[(count * size + n) % #pairs + 1]
  end
  count = count + 1
  return wrk.format("POST", "/transfers/batch",
    { ["Content-Type"] = "application/json", ["Idempotency-Key"] = run .. "-" .. count },
    '{"mode":"atomic","transfers":[' .. table.concat(transfers, ",") .. "]}")
end
