"use strict";
// Tables below the chart: comparison, stored points, validation, provenance.
(() => {
  const { make, text, page } = dse;

  // Rows of texts or elements; columns in `left` hold words.
  dse.table = (heads, rows, caption = "", left = [0]) => {
    const side = k => left.includes(k) ? "words" : null;
    return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption || heads.join(", ") },
      make("table", {}, caption ? make("caption", {}, caption) : null,
        make("thead", {}, make("tr", {}, heads.map((head, k) => make("th", { scope: "col", class: side(k) }, head)))),
        make("tbody", {}, rows.map(row => make("tr", {}, row.map((cell, k) => make("td", { class: side(k), "data-long": side(k) && String(cell.textContent || cell).length > 28 }, cell)))))));
  };

  const metric = (name, value) => {
    const column = dse.known.get(name), scale = column ? column.scale : 1;
    return `${text(value * scale)}${column && column.unit ? " " + column.unit : ""}`;
  };
  const title = name => dse.known.has(name) ? dse.known.get(name).title : name;

  const remark = note => make("p", { class: "note" }, dse.sentence(note));

  // What `dse compare` says of two runs.
  function pair(found) {
    const { a, b } = found;
    if (found.refused) return [make("p", {}, found.refused)];
    const side = s => [s.name, String(s.front), String(s.front - s.dominated.length), text(s.hypervolume, 4),
      ...Object.keys(found.objectives).map(m => metric(m, s.best[m])),
      Object.entries(s.algorithms).map(([name, [front, left]]) => `${name} ${left} of ${front}`).join(", ")];
    const heads = ["run", "points on front", "not dominated", "hypervolume",
      ...Object.entries(found.objectives).map(([m, up]) => `${up === "more" ? "most" : "least"} ${title(m)}`), "standing, by algorithm"];
    const reference = Object.entries(found.reference).map(([m, v]) => `${title(m)} ${metric(m, v)}`).join(", ");
    const change = found.change === null ? "not to be had" : `${found.change >= 0 ? "+" : "−"}${text(Math.abs(100 * found.change))} %`;
    const beaten = (mine, other) => make("p", {}, `${mine.dominated.length} of ${mine.front} points of ${mine.name} are dominated by ${other.name}`
      + (mine.equalled.length ? `, ${mine.equalled.length} have an equal there` : "") + ".");
    return [
      dse.table(heads, [side(a), side(b)], `${a.name} and ${b.name}`, [0, heads.length - 1]),
      make("p", {}, `${b.name} against ${a.name}: hypervolume ${change}, both fronts together ${text(found.joint, 4)}; reference point ${reference}.`),
      beaten(a, b), beaten(b, a),
      ...found.notes.map(remark),
      found.differences.length ? dse.table(["entry", a.name, b.name], found.differences, "What differs in the spaces", [0, 1, 2])
        : make("p", {}, "The spaces are the same."),
    ];
  }

  dse.comparison = element => {
    if (!page.comparisons.length) return;
    element.hidden = false;
    const body = make("div", {});
    const show = k => body.replaceChildren(...pair(page.comparisons[k]));
    const choice = page.comparisons.length < 2 ? null : make("label", {}, "Runs ", make("select", { id: "pair", onchange: event => show(+event.target.value) },
      page.comparisons.map(({ a, b }, k) => make("option", { value: k }, `${a.name} and ${b.name}`))));
    element.append(make("h2", {}, "Comparison"), ...(choice ? [choice] : []), body);
    show(0);
  };

  // Stored points that the filters leave, the front first.
  const COLUMNS = ["speedup_best_dense", "speedup", "nll_increase", "latency_s", "energy_j", "area_mm2"];
  const MOST = 200;
  dse.points = element => {
    const many = page.runs.length > 1, { visible } = dse.state, found = [];
    for (let i = 0; i < dse.count; i++) if (visible[i] && dse.kind[i] === dse.FRONT) found.push(i);
    const loss = dse.numbers("nll_increase");
    found.sort((a, b) => dse.run[a] - dse.run[b] || loss[a] - loss[b]);
    const shown = COLUMNS.filter(name => dse.known.has(name));
    const rows = found.slice(0, MOST).map(i => [
      make("button", { type: "button", class: "link", onclick: () => dse.act.choose(i, true) }, String(dse.value("point", i))),
      make("span", { class: "named" }, dse.markOf(dse.nameOf(i), dse.run[i] > 0), dse.nameOf(i)), ...(many ? [page.runs[dse.run[i]].name] : []),
      ...shown.map(name => text(dse.numbers(name)[i]) + dse.starred(name, i)), text(dse.value("bound", i)), dse.settings(i, dse.nameOf(i)), dse.settings(i, "hardware"),
    ]);
    const first = many ? 3 : 2, heads = ["point", "algorithm", ...(many ? ["run"] : []), ...shown.map(dse.label), "bound", "knobs", "hardware"];
    const left = [0, 1, ...(many ? [2] : []), ...[0, 1, 2].map(k => first + shown.length + k)];
    const cut = found.length > MOST ? `The first ${MOST} of ${found.length}; \`dse front RUN\` prints all.` : "";
    element.replaceChildren(make("h2", {}, "Points on the front"),
      rows.length ? dse.table(heads, rows, "", left) : make("p", { class: "note" }, "The filters leave no point of a front."),
      ...(found.some(i => dse.starred("speedup_best_dense", i)) ? [make("p", { class: "note" }, dse.star)] : []),
      ...(cut ? [make("p", { class: "note" }, cut)] : []));
  };

  function within(row) {
    if (row.tolerance === null) return "shown";
    const bound = row.tolerance === 0 ? "exact" : row.error_is === "fraction" ? `${text(100 * row.tolerance, 2)} %` : text(row.tolerance);
    return `${bound} ${row.within ? "ok" : row.failed ? "FAILS" : "off"}`;
  }

  function error(row) {
    if (row.error === null) return "–";
    const sign = row.error < 0 ? "−" : "+", size = Math.abs(row.error);
    return sign + (row.error_is === "fraction" ? `${text(100 * size)} %` : text(size));
  }

  dse.validation = element => {
    const found = page.validation;
    if (!found) return;
    element.hidden = false;
    const system = ({ title: name, tally, failed, rows }) => make("details", { open: failed > 0 },
      make("summary", {}, name, make("small", {}, ` ${tally}`)),
      dse.table(["published", "ours", "unit", "error", "tolerance", "proves", "quantity, source and what was assumed"], rows.map(row => [
        text(row.published, 4), text(row.ours, 4), row.unit, error(row), within(row), row.proves,
        make("div", {}, row.quantity, make("small", {}, `${row.source}. Assumed: ${row.assumed}.`)),
      ]), name, [2, 4, 5, 6]));
    element.append(make("h2", {}, "Validation"), make("p", {}, "Published numbers, recomputed with the cost model behind this page. ", found.tally, "."),
      ...found.systems.map(system),
      make("dl", { class: "proofs" }, Object.entries(found.proofs).flatMap(([name, meaning]) => [make("dt", {}, name), make("dd", {}, meaning)])));
  };

  dse.provenance = element => {
    const one = run => make("article", {}, make("h3", {}, run.name),
      ...run.notes.map(remark),
      make("h4", {}, "Make it again"), ...run.commands.flatMap(([when, command]) => [make("p", { class: "note" }, when + ":"), make("pre", {}, command)]),
      make("h4", {}, "What it rests on"),
      make("dl", { class: "facts" }, run.provenance.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      make("details", {}, make("summary", {}, "Resolved space (space.toml)"), make("pre", { class: "space" }, run.space)));
    element.append(make("h2", {}, "Provenance"), ...page.runs.map(one),
      make("p", { class: "note" }, `Page made by dse ${page.made.dse}; chart drawn by ${page.made.chart}.`));
  };
})();
