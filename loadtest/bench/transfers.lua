-- wrk: POST /transfers. Arguments after --: file of wallet ids, uniform | from-one | to-one, a word
-- that makes the keys of this run its own, and the milliseconds that each connection waits before a
-- request (none: as fast as it can).
local wallets, mode, run, count, pause = {}, "uniform", "", 0, 0

function init(args)
  for id in io.lines(args[1]) do wallets[#wallets + 1] = id end
  mode, run, pause = args[2], args[3], tonumber(args[4] or 0)
  math.randomseed(os.time())
end

function request()
  count = count + 1
  local a, b = math.random(#wallets), math.random(#wallets - 1)
  if mode == "from-one" then a = 1 end
  if mode == "to-one" then
    b = 1
    a = math.random(2, #wallets)
  elseif b >= a then
    b = b + 1
  end
  return wrk.format("POST", "/transfers",
    { ["Content-Type"] = "application/json", ["Idempotency-Key"] = run .. "-" .. count },
    '{"source_wallet_id":"' .. wallets[a] .. '","destination_wallet_id":"' .. wallets[b]
      .. '","amount":1,"currency":"USD"}')
end

-- Spread, so that the connections do not all ask at once.
function delay()
  return pause > 0 and math.random(pause * 2) or 0
end
