// The page /service: fetches rows of figures from Locust and shows them in a table and in charts.
(() => {
  "use strict";

  const WINDOW_S = 600;
  const ROWS_MAX = 900;
  const CHART_HEIGHT = 165;
  const LINE_COLOURS = 6;
  // A chart of one figure has a line for each process; a chart of several has a line for each
  // figure of the total.
  const CHARTS = [
    [
      "Outcomes of all replicas",
      ...["done_per_s", "refused_per_s", "replayed_per_s", "turned_away_per_s"],
    ],
    ["Group size", "group_size_mean"],
    ["Mailbox wait", "wait_p95_ms"],
    ["Commit", "commit_p95_ms"],
    ["Outbox lag", "outbox_oldest_s"],
    ["Cache hits", "cache_hit_share"],
  ];

  let rows = []; // oldest first
  let columns = [];
  let targets = []; // in the order of their colours
  let charts = [];
  let drawnFor = "";

  const byId = (id) => document.getElementById(id);
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (index) => style(`--line-${index % LINE_COLOURS}`);

  function made(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function valueOf(row, name, { figure, unit }) {
    const value = row?.figures[name]?.[figure] ?? null;
    return value !== null && unit === "%" ? value * 100 : value;
  }

  function shown(value, digits) {
    if (value === null) return "–";
    const fractions = value < 1000 ? digits : 0;
    return value.toLocaleString("en", {
      minimumFractionDigits: fractions,
      maximumFractionDigits: fractions,
    });
  }

  function showStatus({ state, scenario, shape, ledgers, violations = 0, verdict }) {
    byId("run").replaceChildren(made("b", {}, state));
    for (const [name, value] of Object.entries({ scenario, shape, ledgers })) {
      if (value) byId("run").append(` ${name} `, made("b", {}, value));
    }
    const count = `${violations.toLocaleString("en")} violation${violations === 1 ? "" : "s"}`;
    // Set it only if it has changed, because a screen reader reads each new text aloud.
    if (byId("violations").textContent !== count) byId("violations").textContent = count;
    byId("violations").className = violations > 0 ? "some" : "none";
    byId("verdict").textContent = verdict ?? "";
  }

  function lineOf({ target, role, is_up, trouble }, index) {
    const name = made("th", { scope: "row" }, target);
    if (role !== "total") {
      const swatch = made("span", { className: index < LINE_COLOURS ? "swatch" : "swatch dashed" });
      swatch.style.borderColor = colour(index);
      name.prepend(swatch);
    }
    const line = made("tr", { className: is_up ? role : "down" }, name);
    for (const column of columns) {
      const value = is_up ? valueOf(rows.at(-1), target, column) : null;
      const cell = made("td", {}, shown(value, column.digits));
      cell.dataset.figure = column.figure;
      line.append(cell);
    }
    const state = role === "total" ? "" : is_up ? `${role} up` : "down";
    line.append(made("td", { className: "state", title: trouble ?? "" }, state));
    return line;
  }

  function showTable() {
    const headings = [{ title: "Process", unit: "" }, ...columns, { title: "State", unit: "" }];
    byId("headings").replaceChildren(
      ...headings.map(({ title, unit }) =>
        made("th", { scope: "col" }, title, made("small", {}, unit)),
      ),
    );
    const total = { target: "total", role: "total", is_up: true };
    const hasTotal = rows.at(-1)?.figures.total;
    byId("rows").replaceChildren(...[...targets, ...(hasTotal ? [total] : [])].map(lineOf));
  }

  function linesOf(figures) {
    const known = figures.map((figure) => columns.find((column) => column.figure === figure));
    if (known.length > 1) {
      return known.map((column, index) => ({ label: column.title, name: "total", column, index }));
    }
    return targets
      .map(({ target }, index) => ({ label: target, name: target, column: known[0], index }))
      .filter(({ name, column }) => rows.some((row) => valueOf(row, name, column) !== null));
  }

  function dataOf(lines) {
    const newest = rows.at(-1)?.at_s ?? 0;
    const kept = rows.filter((row) => row.at_s > newest - WINDOW_S);
    const values = ({ name, column }) => kept.map((row) => valueOf(row, name, column));
    return [kept.map((row) => row.at_s), ...lines.map(values)];
  }

  function chartOf({ title, lines, column }) {
    const box = made("figure", { ariaLabel: `${title}, ${column.unit}, over time` });
    box.append(made("figcaption", {}, `${title} `, made("small", {}, column.unit)));
    byId("charts").append(box);
    const grid = { stroke: style("--rule"), width: 1 };
    const axis = { stroke: style("--faint"), grid, ticks: { show: false } };
    const time = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");
    const most = (largest) => (column.unit === "%" ? 100 : largest > 0 ? largest * 1.1 : 1);
    const options = {
      width: box.clientWidth,
      height: CHART_HEIGHT,
      cursor: { sync: { key: "service" }, y: false, drag: { x: false } },
      scales: { y: { range: (_, __, largest) => [0, most(largest)] } },
      axes: [
        { ...axis, size: 22, space: 80, values: (_, times) => times.map(time) },
        { ...axis, size: 48 },
      ],
      series: [
        {},
        ...lines.map(({ label, index }) => ({
          label,
          value: (_, value) => shown(value, 1),
          stroke: colour(index),
          width: 2,
          dash: index < LINE_COLOURS ? undefined : [6, 4],
        })),
      ],
    };
    return { plot: new uPlot(options, dataOf(lines), box), lines, box };
  }

  function showCharts() {
    // While another tab is chosen, this page has no width to draw in.
    if (byId("charts").clientWidth === 0 || columns.length === 0) return;
    const wanted = CHARTS.map(([title, ...figures]) => {
      const lines = linesOf(figures);
      return { title, lines, column: columns.find(({ figure }) => figure === figures[0]) };
    });
    const key = document.documentElement.dataset.theme + JSON.stringify(wanted);
    if (key === drawnFor) {
      for (const { plot, lines } of charts) plot.setData(dataOf(lines));
      return;
    }
    drawnFor = key;
    for (const { plot } of charts) plot.destroy();
    byId("charts").replaceChildren();
    charts = wanted.map(chartOf);
  }

  // The theme that is chosen in Locust, otherwise the theme of the system, as in Locust.
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");

  function show() {
    const theme = localStorage.getItem("theme") ?? (prefersDark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    showTable();
    showCharts();
  }

  function fit() {
    for (const { plot, box } of charts) {
      if (box.clientWidth > 0 && box.clientWidth !== plot.width) {
        plot.setSize({ width: box.clientWidth, height: CHART_HEIGHT });
      }
    }
    // Make the frame as high as its content, so that only the outer page scrolls.
    if (window.frameElement && innerWidth > 0) {
      window.frameElement.style.height = `${Math.ceil(document.body.offsetHeight)}px`;
    }
  }

  async function update() {
    let everyMs = 2000;
    try {
      const since = rows.at(-1)?.at_s ?? 0;
      const answer = await fetch(`./service/data?since=${since}`, { cache: "no-store" });
      const data = await answer.json();
      everyMs = data.every_s * 1000;
      ({ columns, targets } = data);
      rows = [...rows, ...data.rows].slice(-ROWS_MAX);
      byId("without-urls").hidden = data.has_urls;
      byId("figures").hidden = !data.has_urls;
      showStatus(data.status);
      show();
      byId("trouble").textContent = "";
    } catch {
      byId("trouble").textContent = "Locust does not answer.";
    }
    setTimeout(update, everyMs);
  }

  addEventListener("storage", show);
  prefersDark.addEventListener("change", show);
  new ResizeObserver(fit).observe(document.body);
  update();
})();
