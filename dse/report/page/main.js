"use strict";
// Puts the page together and lets the reader act on it.
(() => {
  const { make, page, state } = dse, element = id => document.getElementById(id);

  const metrics = page.columns.filter(c => !c.owner && !/_(low|high)$/.test(c.name) && dse.has(c.name));
  const swept = page.columns.filter(c => c.owner && dse.levels(c.name).length > 1 && dse.levels(c.name).every(v => typeof v === "number"));
  const objectives = Object.keys(page.runs[0].objectives).filter(dse.has);
  const loss = objectives.find(name => page.losses.names.includes(name));
  state.x = loss || objectives[0] || metrics[0].name;
  state.y = objectives.find(name => name !== state.x) || metrics.find(c => c.name !== state.x).name;

  let queued = false, anew = false;
  function redraw(axes) { // once for a burst of changes
    anew ||= axes;
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => {
      dse.sieve();
      if (anew) dse.chart.axes(), dse.chart.colours();
      queued = anew = false;
      dse.chart.draw(), tell();
    });
  }
  const changed = () => redraw(false), turned = () => redraw(true);

  // --- what a reader does -------------------------------------------------------------------------------------
  dse.act = {
    hover(i, sx, sy) {
      const tip = element("tip");
      tip.hidden = i < 0;
      element("chart").style.cursor = i < 0 ? "" : "pointer";
      if (i < 0) return;
      if (tip.point !== i) tip.replaceChildren(...dse.tip(i)), tip.point = i;
      // Beside the point where there is room, else under or over it: never on it.
      const box = element("chart").getBoundingClientRect(), [w, h] = [tip.offsetWidth, tip.offsetHeight], gap = 20;
      const within = (v, most) => Math.max(0, Math.min(v, most));
      const beside = [sx + gap, sx - gap - w].find(left => left >= 0 && left + w <= box.width);
      const left = beside ?? within(sx - w / 2, box.width - w);
      const top = beside !== undefined ? within(sy - gap, box.height - h) : sy + gap + h <= box.height ? sy + gap : sy - gap - h;
      tip.style.left = `${left}px`, tip.style.top = `${top}px`;
    },
    choose(i, scroll = false) {
      state.chosen = i;
      dse.chart.ring("chosen", i);
      dse.detail(element("detail"), i);
      if (scroll && i >= 0) element("front").scrollIntoView();
    },
    brush(box) { state.brush = box, changed(); },
    focus(i) {
      state.focused = i;
      dse.chart.ring("focus", i);
      element("spoken").textContent = i < 0 ? "" : dse.spoken(i);
      dse.act.hover(i, ...(i < 0 ? [] : dse.chart.place(i)));
    },
  };

  // Left and right along a staircase, up and down from one to the next at the nearest place.
  function walk(key) {
    const paths = dse.chart.envelopes.map(({ line }) => line.slice().sort((a, b) => dse.chart.X[a] - dse.chart.X[b])).filter(line => line.length);
    if (!paths.length) return;
    let at = paths.findIndex(line => line.includes(state.focused));
    if (at < 0) return dse.act.focus(paths[0][0]);
    const line = paths[at], k = line.indexOf(state.focused);
    if (key === "ArrowUp" || key === "ArrowDown") {
      const next = paths[(at + (key === "ArrowDown" ? 1 : paths.length - 1)) % paths.length];
      const here = dse.chart.X[state.focused];
      return dse.act.focus(next.reduce((a, b) => Math.abs(dse.chart.X[b] - here) < Math.abs(dse.chart.X[a] - here) ? b : a));
    }
    const to = { ArrowLeft: k - 1, ArrowRight: k + 1, Home: 0, End: line.length - 1 }[key];
    dse.act.focus(line[Math.max(0, Math.min(line.length - 1, to))]);
  }

  function keys(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) walk(event.key);
    else if (event.key === "Enter" && state.focused >= 0) dse.act.choose(state.focused), element("detail").focus({ preventScroll: true });
    else if (event.key === "Escape") dse.act.focus(-1), dse.act.choose(-1);
    else return;
    event.preventDefault(), event.stopPropagation();
  }

  // --- controls -----------------------------------------------------------------------------------------------
  function choice(id, label, extra) {
    const group = (name, columns) => columns.length ? make("optgroup", { label: name }, columns.map(c => make("option", { value: c.name }, dse.label(c.name)))) : null;
    const select = make("select", { id, onchange: () => { state[id] = select.value, dse.act.focus(-1), turned(); } }, extra,
      group("metrics", metrics), group("hardware", swept.filter(c => c.owner === "hardware")), group("knobs", swept.filter(c => c.owner !== "hardware")));
    select.value = state[id];
    return make("label", {}, label, select);
  }

  function toggles(label, entries, set) {
    return make("div", { class: "toggles", role: "group", "aria-label": label }, entries.map((children, k) => make("button", {
      type: "button", "aria-pressed": "true", onclick: event => {
        if (set.has(k)) set.delete(k); else set.add(k);
        event.currentTarget.setAttribute("aria-pressed", String(set.has(k)));
        dse.act.focus(-1), turned();
      },
    }, children)));
  }

  function dash(run) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [key, value] of Object.entries({ viewBox: "0 0 24 12", width: 24, height: 12, "aria-hidden": "true" })) svg.setAttribute(key, value);
    for (const [key, value] of Object.entries({ d: "M0 6H24", stroke: "currentColor", "stroke-width": 1.6, "stroke-dasharray": dse.dashOf(run).join(" ") })) line.setAttribute(key, value);
    svg.append(line);
    return svg;
  }

  function controls() {
    const modes = [["select", "Select box"], ["zoom", "Zoom box"], ["pan", "Pan"]];
    const drag = make("select", { id: "drag", onchange: () => dse.chart.drag(drag.value) }, modes.map(([value, text]) => make("option", { value }, text)));
    element("controls").replaceChildren(
      choice("x", "Horizontal"), choice("y", "Vertical"), choice("colour", "Colour", make("option", { value: "algorithm" }, "algorithm")),
      make("label", {}, "Drag to", drag), make("button", { type: "button", id: "fit", onclick: turned }, "Fit"),
      make("div", { class: "legend", id: "legend" },
        toggles("Algorithms", dse.names.map(name => [dse.markOf(name), name + (name === page.rival && dse.names.length > 1 ? " (the rival)" : "")]), state.algorithms),
        page.runs.length > 1 ? toggles("Runs", page.runs.map((run, r) => [dash(r), run.name, r ? " (hollow)" : ""]), state.runs) : null,
        make("div", { class: "ramp", id: "ramp" })));
  }

  // Marks in the colours of the chart, and its scale of colours where it has one.
  function legend() {
    const { colour } = state, { ends } = dse.chart, named = colour === "algorithm";
    document.querySelectorAll("#legend [aria-label=Algorithms] svg").forEach((svg, k) =>
      svg.replaceWith(dse.markOf(dse.names[k], false, named ? dse.colourOf(dse.names[k]) : dse.theme().muted)));
    element("ramp").replaceChildren(...(named || !ends ? [] : [
      dse.text(ends[0]), make("i", { style: { background: `linear-gradient(to right, ${dse.palette(9).join(",")})` } }), dse.text(ends[1]), ` ${dse.label(colour)}`,
    ]));
  }

  // --- what is shown, and how far to trust it -----------------------------------------------------------------
  function tell() {
    let stored = 0, sampled = 0;
    const finite = i => Number.isFinite(dse.chart.X[i]) && Number.isFinite(dse.chart.Y[i]);
    for (let i = 0; i < dse.count; i++) if (state.visible[i] && finite(i)) if (dse.kind[i] === dse.SAMPLED) sampled++; else stored++;
    const n = v => v.toLocaleString("en-US").replaceAll(",", " ");
    const all = page.runs.reduce((sum, run) => sum + run.front.rows, 0);
    const drawn = page.runs.reduce((sum, run) => sum + (run.sample ? run.sample.points.rows : 0), 0);
    const priced = page.runs.reduce((sum, run) => sum + (run.sample ? run.sample.priced : 0), 0);
    const total = page.runs.reduce((sum, run) => sum + (run.sample ? run.sample.total : 0), 0);
    const spaces = page.runs.length > 1 ? "spaces" : "space";
    const others = priced === total ? `others that keep the constraints (all ${n(total)} of the ${spaces} were priced)`
      : `random others that keep the constraints (${n(priced)} priced, of ${n(total)} in the ${spaces})`;
    element("shown").textContent = `Shown: ${n(stored)} of ${n(all)} stored points` + (priced ? ` and ${n(sampled)} of ${n(drawn)} ${others}` : "") + ".";
    const { brush } = state, chip = element("brush");
    chip.replaceChildren();
    if (brush) {
      const part = (name, a, b) => `${dse.label(name)} ${dse.text(a)} to ${dse.text(b)}`;
      chip.append(make("button", { type: "button", onclick: () => dse.act.brush(null), "aria-label": "Remove the box" },
        `Box: ${part(brush.x, brush.x0, brush.x1)}; ${part(brush.y, brush.y0, brush.y1)}  ×`));
    }
    element("clear").disabled = !dse.filtering();
    const honest = [];
    const usual = page.runs.every(run => [state.x, state.y].every(name => name in run.objectives) && Object.keys(run.objectives).length === 2);
    if (!usual) honest.push("Fronts were kept for the objectives of their runs; on these axes the staircases join the stored points only.");
    if (dse.filtering()) honest.push("With a filter the staircases join the stored points that are left; the front of a smaller space comes from a sweep of it (--set).");
    if ([state.x, state.y].some(name => new Set(page.runs.map(run => run.over[name])).size > 1)) {
      honest.push("These runs have different baselines, so their ratios do not compare; the table of the comparison takes them over one baseline.");
    }
    element("honest").textContent = honest.join(" ");
    legend(), dse.points(element("points"));
  }

  function start() {
    element("title").textContent = page.title;
    element("keys").textContent = (dse.names.includes(page.rival) ? `Grey: no better than dense attention${page.runs.length > 1 ? " of " + page.runs[0].name : ""}. ` : "")
      + "Bars: 95 % intervals of the loss. Keys in the chart: ← → along a staircase, ↑ ↓ to another, Enter for the breakdown, Esc to leave.";
    element("findings").append(...page.runs.map(run => make("p", {}, page.runs.length > 1 ? make("strong", {}, run.name + " ") : null,
      make("span", { class: "note" }, `${run.title}; baseline: ${run.baseline}. `), run.sentence,
      ...run.notes.map(note => make("span", { class: "note" }, ` ${dse.sentence(note)}`)))));
    const sections = [["front", "Front"], ["comparison", "Comparison"], ["points", "Points"], ["validation", "Validation"], ["provenance", "Provenance"]];
    controls();
    dse.filterPanel(element("filters"), changed);
    dse.detail(element("detail"), -1);
    dse.chart.start(element("chart")).then(() => {
      dse.chart.restyle(), dse.sieve(), dse.chart.axes(), dse.chart.colours(), dse.chart.draw(), tell();
      dse.comparison(element("comparison")), dse.validation(element("validation")), dse.provenance(element("provenance"));
      element("sections").append(...sections.filter(([id]) => !element(id).hidden).map(([id, text]) => make("a", { href: `#${id}` }, text)));
      element("chart").addEventListener("keydown", keys, true);
      element("chart").addEventListener("focusout", () => { dse.act.hover(-1), dse.chart.ring("focus", -1); });
      element("chart").addEventListener("focusin", () => dse.chart.ring("focus", state.focused));
      dse.onTheme(() => { dse.chart.restyle(), turned(); });
      requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset.ready = performance.now(); }));
    }).catch(error => {
      element("honest").textContent = `The chart cannot be drawn in this browser: ${error.message}`;
      throw error;
    });
  }

  start();
})();
