-- wrk: GET /wallets/{id}. Argument after --: a file of "source destination" lines, of which
-- it reads the sources.
local paths, count = {}, 0

function init(args)
  for source in io.open(args[1]):read("*a"):gmatch("(%S+) %S+") do
    paths[#paths + 1] = "/wallets/" .. source
  end
end

function request()
  count = count + 1
  return wrk.format("GET", paths[count % #paths + 1])
end
