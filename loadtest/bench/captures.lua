-- wrk: POST /holds/{id}/capture. Arguments after --: a file with the id of a hold in each line, which are used
-- in order, and the prefix of this run's keys.
local ids, run, count = {}, "", 0

function init(args)
  for id in io.open(args[1]):read("*a"):gmatch("%S+") do
    ids[#ids + 1] = id
  end
  run = args[2]
end

function request()
  count = count + 1
  return wrk.format("POST", "/holds/" .. ids[(count - 1) % #ids + 1] .. "/capture",
    { ["Content-Type"] = "application/json", ["Idempotency-Key"] = run .. "-" .. count }, "{}")
end
