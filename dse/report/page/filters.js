"use strict";
// Filters on knobs and hardware, and which points they leave.
(() => {
  const state = dse.state = {
    x: "", y: "", colour: "algorithm", runs: new Set(dse.page.runs.keys()), algorithms: new Set(dse.names.keys()),
    ranges: new Map(), words: new Map(), brush: null, chosen: -1, focused: -1,
    shownOf: new Uint8Array(dse.count).fill(1), visible: new Uint8Array(dse.count).fill(1),
  };

  // Points of runs and algorithms that are on; of those, the ones that the filters and the box leave.
  dse.sieve = () => {
    const on = Uint8Array.from(dse.page.runs, (_, r) => state.runs.has(r) ? 1 : 0);
    const named = Uint8Array.from(dse.names, (_, a) => state.algorithms.has(a) ? 1 : 0);
    const { shownOf, visible } = state;
    for (let i = 0; i < dse.count; i++) visible[i] = shownOf[i] = on[dse.run[i]] && named[dse.algorithm[i]];
    const between = (name, low, high, missing) => {
      const values = dse.numbers(name);
      for (let i = 0; i < dse.count; i++) {
        const v = values[i];
        if (Number.isNaN(v) ? !missing : v < low || v > high) visible[i] = 0;
      }
    };
    // What has no such knob is not filtered by it.
    for (const [name, [low, high]] of state.ranges) between(name, low, high, true);
    for (const [name, off] of state.words) {
      for (const table of dse.tables) {
        if (!(name in table.packed.columns)) continue;
        const read = table.column(name);
        for (let i = 0; i < table.rows; i++) if (off.has(read(i))) visible[table.first + i] = 0;
      }
    }
    if (state.brush) {
      const { x, y, x0, x1, y0, y1 } = state.brush;
      between(x, x0, x1, false), between(y, y0, y1, false);
    }
  };

  dse.filtering = () => state.ranges.size > 0 || state.words.size > 0 || state.brush !== null;

  const STEPS = 200; // of a slider over a column with more different values

  // A pair of sliders over the values of a column.
  function range(name, levels, changed) {
    const scale = dse.known.get(name).scale;
    const stops = levels.length <= STEPS ? levels.map(v => v * scale)
      : Array.from({ length: STEPS }, (_, k) => (levels[0] + (levels[levels.length - 1] - levels[0]) * k / (STEPS - 1)) * scale);
    const last = stops.length - 1, says = dse.make("output", {});
    const handle = (end, value) => dse.make("input", {
      type: "range", min: 0, max: last, step: 1, value, "data-filter": name, "data-end": end,
      "aria-label": `${dse.label(name)}, ${end === "low" ? "at least" : "at most"}`,
      oninput: event => {
        if (+low.value > +high.value) event.target.value = event.target === low ? high.value : low.value;
        show();
        const whole = +low.value === 0 && +high.value === last;
        if (whole) state.ranges.delete(name); else state.ranges.set(name, [stops[+low.value], stops[+high.value]]);
        changed();
      },
    });
    const low = handle("low", 0), high = handle("high", last);
    const fill = dse.make("i", {});
    const show = () => {
      const ends = [low, high].map(h => dse.brief(Number(stops[+h.value].toPrecision(4))));
      says.textContent = ends[0] === ends[1] ? ends[0] : ends.join(" to ");
      for (const h of [low, high]) h.setAttribute("aria-valuetext", dse.brief(stops[+h.value]));
      fill.style.left = `${100 * low.value / last}%`, fill.style.right = `${100 - 100 * high.value / last}%`;
    };
    show();
    const row = dse.make("div", { class: "filter" }, head(name, says), dse.make("div", { class: "slider" }, fill, low, high));
    row.reset = () => { low.value = 0, high.value = last, show(); };
    return row;
  }

  // A box to tick for each word of a column.
  function words(name, levels, changed) {
    const boxes = levels.map(level => dse.make("input", {
      type: "checkbox", checked: true, "data-filter": name,
      onchange: () => {
        const off = new Set(levels.filter((_, k) => !boxes[k].checked));
        if (off.size) state.words.set(name, off); else state.words.delete(name);
        changed();
      },
    }));
    const row = dse.make("fieldset", { class: "filter" }, dse.make("legend", {}, head(name, null)),
      dse.make("div", { class: "choices" }, levels.map((level, k) => dse.make("label", {}, boxes[k], dse.text(level)))));
    row.reset = () => boxes.forEach(box => { box.checked = true; });
    return row;
  }

  function head(name, says) {
    const { title, unit } = dse.known.get(name);
    return dse.make("div", { class: "name" }, dse.make("span", {}, title, unit ? dse.make("small", {}, ` ${unit}`) : null), says);
  }

  // The panel: hardware first, then the knobs of each algorithm.
  dse.filterPanel = (element, changed) => {
    const groups = new Map(), rows = [];
    for (const column of dse.page.columns) {
      if (!column.owner) continue;
      const levels = dse.levels(column.name);
      if (levels.length < 2) continue;
      const numeric = levels.every(v => typeof v === "number");
      const row = (numeric ? range : words)(column.name, levels, changed);
      rows.push(row);
      if (!groups.has(column.owner)) groups.set(column.owner, []);
      groups.get(column.owner).push(row);
    }
    const clear = dse.make("button", { type: "button", id: "clear", onclick: () => {
      state.ranges.clear(), state.words.clear(), state.brush = null;
      rows.forEach(row => row.reset());
      changed();
    } }, "Clear");
    const wide = window.matchMedia("(min-width: 1101px)").matches;
    element.append(dse.make("div", { class: "head" }, dse.make("h2", {}, "Filters"), clear), ...[...groups].map(([owner, list]) =>
      dse.make("details", { open: owner === "hardware" && wide }, dse.make("summary", {}, owner), list)));
    if (!rows.length) element.append(dse.make("p", { class: "note" }, "Nothing was swept: there is nothing to filter by."));
  };
})();
