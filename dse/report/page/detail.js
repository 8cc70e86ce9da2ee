"use strict";
// What is said about one point: in the tip beside the pointer, and in the panel with its breakdown.
(() => {
  const LOSS = "nll_increase", MEMORY_LIMITS = { columns: "data bus", activations: "row activations", window: "requests in flight" };
  const RANGED = ["latency_s", "energy_j", "area_mm2"];
  const { make, text, brief } = dse;

  // What must be known of a gain over dense where dense has nothing as accurate.
  dse.star = "* No dense point of this space is as accurate: against the most accurate one.";
  dse.starred = (name, i) => name === "speedup_best_dense" && dse.value("best_dense_as_accurate", i) === false ? "*" : "";

  // A metric with its unit, and its interval where it has one.
  const reading = (name, i) => {
    const column = dse.known.get(name), of = end => {
      const v = dse.value(name + end, i);
      return typeof v === "number" ? v * column.scale : null;
    };
    const [value, low, high] = ["", "_low", "_high"].map(of);
    const interval = low === null || high === null ? [] : [`(${text(low)} to ${text(high)})`];
    return [text(value) + (value !== null && column.unit ? ` ${column.unit}` : "") + dse.starred(name, i), ...interval];
  };

  // Whether a column tells the points of a run apart.
  const told = new Map();
  const varies = (name, run) => {
    const key = `${run} ${name}`;
    if (!told.has(key)) told.set(key, dse.levels(name, run).length > 1);
    return told.get(key);
  };
  const owned = (i, owner, all = false) => dse.page.columns
    .filter(c => c.owner === owner && (all || varies(c.name, dse.run[i])) && dse.value(c.name, i) !== null)
    .map(c => [c.title, brief(dse.value(c.name, i)) + (c.unit ? ` ${c.unit}` : "")]);

  const line = pairs => pairs.map(pair => pair.join(" ")).join(", ");
  dse.settings = (i, owner) => line(owned(i, owner));
  dse.nameOf = i => dse.names[dse.algorithm[i]];
  dse.kindOf = i => ["on the front", "on the front of its algorithm", "a random point of the space"][dse.kind[i]];
  const many = dse.page.runs.length > 1;

  // One line for a screen reader.
  dse.spoken = i => {
    const { x, y } = dse.state;
    const knobs = dse.settings(i, dse.nameOf(i));
    return `${dse.nameOf(i)}${many ? " of " + dse.page.runs[dse.run[i]].name : ""}, ${dse.kindOf(i)}: `
      + [x, y].map(name => `${dse.known.get(name).title} ${reading(name, i).join(" ")}`).join(", ") + (knobs ? `; ${knobs}` : "");
  };

  const list = pairs => make("dl", {}, pairs.map(([name, value]) => make("div", {}, make("dt", {}, name),
    make("dd", {}, [value].flat().flatMap((words, k) => [k ? " " : "", make("span", {}, words)])))));

  const SHOWN = [LOSS, "speedup_best_dense", "energy_j", "area_mm2"];
  dse.tip = i => {
    const { x, y, colour } = dse.state, known = name => dse.known.has(name) && dse.value(name, i) !== null;
    const metrics = [...new Set([x, y, ...(colour === "algorithm" ? [] : [colour]), ...SHOWN])].filter(known);
    const rest = [["knobs", dse.settings(i, dse.nameOf(i))], ["hardware", dse.settings(i, "hardware")]].filter(pair => pair[1]);
    return [
      make("strong", {}, dse.markOf(dse.nameOf(i), dse.run[i] > 0), ` ${dse.nameOf(i)}`),
      make("p", {}, [dse.kindOf(i), many ? dse.page.runs[dse.run[i]].name : null].filter(Boolean).join(", ")),
      list(metrics.map(name => [dse.known.get(name).title, reading(name, i)])),
      ...rest.map(([title, words]) => make("p", { class: "rest" }, make("b", {}, `${title}: `), words)),
    ];
  };

  // Bars of parts, longest the measure of all; parts below half a percent of the sum together.
  function bars(parts, scale, unit, about) {
    const sum = Object.values(parts).reduce((a, b) => a + b, 0), rows = [];
    let small = 0;
    for (const [name, value] of Object.entries(parts)) if (value < 0.005 * sum) small += value; else rows.push([name, value]);
    if (small > 0) rows.push(["all others", small]);
    const most = Math.max(...rows.map(row => row[1]));
    return make("table", { class: "bars" }, make("caption", {}, about, make("span", {}, `${text(sum * scale)} ${unit}`)),
      make("tbody", {}, rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name),
        make("td", { class: "bar" }, make("i", { style: { width: `${100 * value / most}%` } })),
        make("td", {}, text(value * scale)), make("td", { class: "share" }, `${text(100 * value / sum, 2)} %`)))));
  }

  function breakdown(found) {
    const parts = [bars(found.time_s, 1e6, "µs", "Time by phase and what binds it")];
    const hidden = found.overlap_s > 0 ? `; heads in flight hide ${text(found.overlap_s * 1e6)} µs of it` : "";
    parts.push(make("p", { class: "note" }, `One head after another${hidden}: attention takes ${text(found.attention_s * 1e6)} µs.`));
    if (Object.keys(found.rest_s).length) parts.push(bars(found.rest_s, 1e6, "µs", "The model around attention"));
    parts.push(bars(found.energy_j, 1e6, "µJ", "Energy by component"), bars(found.area_mm2, 1, "mm²", "Area by component, without DRAM"));
    if (found.streams.length) parts.push(memory(found));
    return parts;
  }

  function memory(found) {
    const cells = s => [s.stream, text(s.rows), text(s.fetched_bytes / 1e6), text(s.waste), MEMORY_LIMITS[s.limit] || s.limit, `${text(100 * s.efficiency, 2)} %`];
    return dse.table(["stream", "rows per head", "fetched MB", "fetched / asked", "limit", "of peak"],
      found.streams.map(cells), "What memory did", [0, 4]);
  }

  // The panel of a point.
  dse.detail = (element, i) => {
    element.replaceChildren();
    if (i < 0) {
      element.append(make("h2", {}, "Breakdown"), make("p", { class: "note" }, "Choose a point: click it, or walk to it with the arrow keys and press Enter."));
      return;
    }
    const run = dse.page.runs[dse.run[i]], name = dse.nameOf(i), id = dse.value("point", i);
    const metrics = dse.page.columns.filter(c => !c.owner && !/_(low|high)$/.test(c.name) && dse.value(c.name, i) !== null);
    const found = id === null ? undefined : run.breakdowns[id];
    const leading = new Set([LOSS, ...RANGED, "speedup", "speedup_best_dense", "speedup_end_to_end", dse.state.x, dse.state.y]);
    const pairs = columns => list(columns.map(c => [c.title, reading(c.name, i)]));
    const command = id === null ? null : `dse explain ${quoted(run.place)} ${id}`;
    element.append(
      make("h2", {}, dse.markOf(name, dse.run[i] > 0), ` ${name}`, id === null ? null : make("code", {}, id)),
      make("p", { class: "note" }, [`${many ? run.name + ", " : ""}${dse.kindOf(i)}`, `bound: ${text(dse.value("bound", i))}`,
        dse.value("accuracy", i) === "interpolated" ? "accuracy interpolated" : null,
        dse.value("distinct", i) === false ? "another point may be as good: the measured text cannot tell them apart" : null].filter(Boolean).join("; ")),
      pairs(metrics.filter(c => leading.has(c.name))),
      ...(dse.starred("speedup_best_dense", i) ? [make("p", { class: "note" }, dse.star)] : []),
      make("h3", {}, "Knobs"), list(owned(i, name, true)), make("h3", {}, "Hardware"), list(owned(i, "hardware")),
      ...(found ? breakdown(found) : [make("p", { class: "note" }, id === null
        ? "Random points are not broken down; click a point of a front." : "Not broken down on this page.")]),
      make("details", {}, make("summary", {}, "All metrics"), pairs(metrics.filter(c => !leading.has(c.name)))),
      make("details", {}, make("summary", {}, "All hardware parameters"), list(owned(i, "hardware", true))),
      ...(command ? [make("p", { class: "note" }, "Every constant behind it, and what binds next:"), make("pre", {}, command)] : []),
    );
  };

  const quoted = word => /^[\w./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
})();
