// The page /service: asks Locust for figures, and shows them as a table and as lines over time.
(() => {
  "use strict";

  const WINDOW_S = 600;
  const POINTS_MAX = 900;
  const CHART_HEIGHT = 150;
  const LINE_COLOURS = 6;

  // Heading, unit, the figure of a point, digits; a factor where the unit is another one.
  const COLUMNS = [
    ["Done", "/s", "done_per_s", 1],
    ["Refused", "/s", "refused_per_s", 1],
    ["Replayed", "/s", "replayed_per_s", 1],
    ["Turned away", "/s", "turned_away_per_s", 1],
    ["Group size", "mean", "group_size_mean", 1],
    ["Mailbox wait", "p95 ms", "wait_p95_ms", 1],
    ["Commit", "p95 ms", "commit_p95_ms", 1],
    ["Cache hits", "%", "cache_hit_share", 1, 100],
    ["Outbox", "waiting", "outbox_waiting", 0],
    ["Outbox", "oldest s", "outbox_oldest_s", 1],
    ["CPU", "%", "cpu_share", 0, 100],
    ["Memory", "MiB", "rss_mib", 0],
  ];
  const RESULTS = [
    ["done", "done_per_s", 2],
    ["refused", "refused_per_s", 4],
    ["replayed", "replayed_per_s", 0],
    ["turned away", "turned_away_per_s", 1],
  ];
  // Title, unit, the figure, whose lines: of all together by result, of replicas, or of workers.
  const CHARTS = [
    ["Outcomes of all replicas", "/s", null, "results"],
    ["Group size", "mean", "group_size_mean", "replica"],
    ["Mailbox wait", "p95 ms", "wait_p95_ms", "replica"],
    ["Commit", "p95 ms", "commit_p95_ms", "replica"],
    ["Outbox lag", "oldest s", "outbox_oldest_s", "worker"],
    ["Cache hits", "%", "cache_hit_share", "replica", 100],
  ];

  const points = new Map(); // name of a process, or "total" -> points, oldest first
  let targets = []; // rows but the total, in the order of their colours
  let newest = 0;
  let charts = [];
  let drawnFor = "";

  const byId = (id) => document.getElementById(id);

  function made(tag, text = "", properties = {}) {
    const element = Object.assign(document.createElement(tag), properties);
    if (text !== "") element.append(text);
    return element;
  }

  function shown(value, digits) {
    if (value === null || value === undefined) return "–";
    return value.toLocaleString("en", {
      minimumFractionDigits: value < 1000 ? digits : 0,
      maximumFractionDigits: value < 1000 ? digits : 0,
    });
  }

  function colour(index) {
    const name = `--line-${index % LINE_COLOURS}`;
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function swatch(index) {
    const line = made("span", "", { className: "swatch", ariaHidden: "true" });
    line.style.borderColor = colour(index);
    line.classList.toggle("dashed", index >= LINE_COLOURS);
    return line;
  }

  // The theme that somebody chose in Locust, else that of the system: Locust decides the same way.
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");

  function followTheme() {
    const chosen = localStorage.getItem("theme");
    const theme = chosen ?? (prefersDark.matches ? "dark" : "light");
    if (document.documentElement.dataset.theme === theme) return;
    document.documentElement.dataset.theme = theme;
    drawnFor = "";
    showTable();
    showCharts();
  }

  function showStatus(status) {
    byId("run").replaceChildren();
    for (const name of ["state", "scenario", "shape"]) {
      if (!status[name]) continue;
      const label = name === "state" ? "" : ` ${name} `;
      byId("run").append(made("span", label), made("b", status[name]), " ");
    }
    const count = status.violations ?? 0;
    const text = count === 1 ? "1 violation" : `${count.toLocaleString("en")} violations`;
    // Said again only when it changes, for whoever listens instead of looking.
    if (byId("violations").textContent !== text) byId("violations").textContent = text;
    byId("violations").className = count > 0 ? "some" : "none";
    byId("verdict").textContent = status.verdict ?? "";
  }

  function rowOf(row, index) {
    const line = made("tr", "", { className: row.is_up ? row.role : "away" });
    const name = made("th", "", { scope: "row" });
    name.append(...(index < 0 ? [] : [swatch(index)]), row.target);
    line.append(name);
    for (const [, , figure, digits, factor = 1] of COLUMNS) {
      const value = row.point?.[figure] ?? null;
      const cell = made("td", shown(value === null ? null : value * factor, digits));
      cell.dataset.figure = figure;
      line.append(cell);
    }
    const state = row.role === "total" ? "" : row.is_up ? `${row.role} up` : "away";
    line.append(made("td", state, { className: "state", title: row.trouble ?? "" }));
    return line;
  }

  let rows = [];

  function showTable() {
    byId("rows").replaceChildren(
      ...rows.map((row, index) => rowOf(row, row.role === "total" ? -1 : index)),
    );
  }

  // Lines of a chart: a name, the number of the colour, whose points, which figure of them.
  function linesOf([, , figure, whose]) {
    if (whose === "results") {
      return RESULTS.map(([name, each, index]) => ({ name, index, of: "total", figure: each }));
    }
    return targets
      .map((row, index) => ({ name: row.target, role: row.role, index, of: row.target, figure }))
      .filter(({ role }) => role === whose);
  }

  function dataOf(lines, factor) {
    const after = newest - WINDOW_S;
    const columns = lines.map(({ of, figure }) => {
      const kept = (points.get(of) ?? []).filter((point) => point.at_s > after);
      return new Map(kept.map((point) => [point.at_s, point[figure]]));
    });
    const times = [...new Set(columns.flatMap((column) => [...column.keys()]))].sort(
      (one, other) => one - other,
    );
    const scaled = (value) => (value === null || value === undefined ? null : value * factor);
    return [times, ...columns.map((column) => times.map((at) => scaled(column.get(at))))];
  }

  function clock(seconds, withSeconds) {
    return new Date(seconds * 1000).toLocaleTimeString("en-GB", {
      hour: "2-digit",
      minute: "2-digit",
      ...(withSeconds ? { second: "2-digit" } : {}),
    });
  }

  // A value between two gaps is no line; without a dot nobody would see it.
  function lonely(plot, series) {
    const values = plot.data[series];
    return [...values.keys()].filter(
      (at) => values[at] !== null && (values[at - 1] ?? values[at + 1] ?? null) === null,
    );
  }

  function options(lines, width, most, readout) {
    const style = getComputedStyle(document.documentElement);
    const axis = {
      stroke: style.getPropertyValue("--faint").trim(),
      grid: { stroke: style.getPropertyValue("--rule").trim(), width: 1 },
      ticks: { show: false },
      font: "11px Roboto, Helvetica, Arial, sans-serif",
    };
    const times = (_, splits, __, ___, step) => splits.map((at) => clock(at, step < 60));
    const range = (_, __, largest) => [0, most ?? (largest > 0 ? largest * 1.1 : 1)];
    return {
      width,
      height: CHART_HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "service" }, y: false, drag: { x: false, y: false } },
      scales: { y: { range } },
      axes: [
        { ...axis, size: 22, space: 70, values: times },
        { ...axis, size: 48, space: 28 },
      ],
      series: [
        {},
        ...lines.map(({ index }) => ({
          stroke: colour(index),
          width: 2,
          dash: index >= LINE_COLOURS ? [6, 4] : undefined,
          points: { show: true, size: 4, filter: lonely },
        })),
      ],
      hooks: { setCursor: [readout] },
    };
  }

  function chartOf(kind) {
    const [title, unit, , whose, factor = 1] = kind;
    const lines = linesOf(kind);
    const heading = made("span", `${title} `);
    heading.append(made("small", unit));
    const output = made("output");
    const caption = made("figcaption");
    caption.append(heading, output);
    const box = made("div", "", { role: "img", ariaLabel: `${title}, ${unit}, over time` });
    const figure = made("figure");
    figure.append(caption, box);
    byId("charts").append(figure);

    // Under the pointer: the values. Else, where no row of the table says it: what the lines are.
    function readout(plot) {
      const at = plot.cursor.idx;
      const isOver = at !== null && at !== undefined;
      output.replaceChildren();
      if (!isOver && whose !== "results") return;
      for (const [number, { name, index }] of lines.entries()) {
        const text = isOver ? shown(plot.data[number + 1][at], 1) : name;
        const value = made("span", text);
        value.style.color = colour(index);
        output.append(value);
      }
    }

    const most = factor === 100 ? 100 : null;
    const plot = new uPlot(
      options(lines, box.clientWidth, most, readout), dataOf(lines, factor), box,
    );
    readout(plot);
    return { plot, box, refresh: () => plot.setData(dataOf(lines, factor)) };
  }

  function showCharts() {
    // Locust hides this page while another tab is chosen; there is no width to draw in, then.
    if (byId("charts").clientWidth === 0) return;
    const wanted = JSON.stringify(targets.map((row) => [row.target, row.role]));
    if (wanted === drawnFor) {
      for (const chart of charts) chart.refresh();
      return;
    }
    drawnFor = wanted;
    for (const { plot } of charts) plot.destroy();
    byId("charts").replaceChildren();
    charts = CHARTS.map(chartOf);
  }

  function fit() {
    for (const { plot, box } of charts) {
      if (box.clientWidth > 0 && box.clientWidth !== plot.width) {
        plot.setSize({ width: box.clientWidth, height: CHART_HEIGHT });
      }
    }
    // As high as the content, so that only one of the two pages scrolls.
    if (window.frameElement && innerWidth > 0) {
      window.frameElement.style.height = `${Math.ceil(document.body.offsetHeight)}px`;
    }
  }

  function take(data) {
    byId("nobody").hidden = data.has_urls;
    byId("figures").hidden = !data.has_urls;
    for (const [name, added] of Object.entries(data.points)) {
      const kept = [...(points.get(name) ?? []), ...added];
      points.set(name, kept.slice(-POINTS_MAX));
      if (added.length > 0) newest = Math.max(newest, added.at(-1).at_s);
    }
    rows = data.rows;
    targets = rows.filter((row) => row.role !== "total");
    showStatus(data.status);
    showTable();
    showCharts();
  }

  async function ask() {
    let everyMs = 2000;
    try {
      const answer = await fetch(`./service/data?since=${newest}`, { cache: "no-store" });
      const data = await answer.json();
      everyMs = data.every_s * 1000;
      take(data);
      byId("trouble").textContent = "";
    } catch (error) {
      byId("trouble").textContent = "Locust does not answer.";
    }
    setTimeout(ask, everyMs);
  }

  byId("headings").append(made("th", "Process", { scope: "col" }));
  for (const [title, unit] of COLUMNS) {
    const heading = made("th", title, { scope: "col" });
    heading.append(made("small", unit));
    byId("headings").append(heading);
  }
  byId("headings").append(made("th", "State", { scope: "col" }));
  followTheme();
  addEventListener("storage", followTheme);
  prefersDark.addEventListener("change", followTheme);
  new ResizeObserver(fit).observe(document.body);
  ask();
})();
