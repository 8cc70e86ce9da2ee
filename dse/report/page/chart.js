"use strict";
// The chart: points, staircases, intervals and the rival's shade, drawn by Bokeh.
(() => {
  const STEPS = 64, LOSS_ENDS = ["_low", "_high"], RIVAL = dse.page.rival, OUTLIERS = 0.01, CROWD = 20000;
  const source = data => new Bokeh.ColumnDataSource({ data });
  const POINT = () => ({ x: new Float64Array(0), y: new Float64Array(0), c: new Float64Array(0), s: [], m: [], f: [] });
  let figure, view, mapper, sources, tools, marks;

  const chart = dse.chart = { X: null, Y: null, scales: null, envelopes: [] };

  chart.start = element => {
    tools = {
      select: new Bokeh.BoxSelectTool({ continuous: false, renderers: [] }), zoom: new Bokeh.BoxZoomTool(), pan: new Bokeh.PanTool(),
    };
    figure = Bokeh.Plotting.figure({
      tools: Object.values(tools), toolbar_location: null, output_backend: "webgl", sizing_mode: "stretch_both",
      background_fill_color: null, border_fill_color: null, outline_line_color: null, // the page's own ground
      x_range: new Bokeh.Range1d({ start: 0, end: 1 }), y_range: new Bokeh.Range1d({ start: 0, end: 1 }),
    });
    tools.select.active = true;
    mapper = new Bokeh.LinearColorMapper({ palette: ["#000000", "#000000"], low: 0, high: 1 });
    const colour = { field: "c", transform: mapper }, at = { x: { field: "x" }, y: { field: "y" } };
    sources = {
      shade: source({ x: [], y: [] }), off: source(POINT()), sampled: source(POINT()), lines: source({ xs: [], ys: [], k: [], d: [] }),
      bars: source({ x0: [], y0: [], x1: [], y1: [], k: [] }), minor: source(POINT()), front: source(POINT()),
      focus: source({ x: [], y: [] }), chosen: source({ x: [], y: [] }),
    };
    const scatter = more => figure.scatter({ ...at, marker: { field: "m" }, size: { field: "s" }, line_color: colour, fill_color: colour, fill_alpha: { field: "f" }, ...more });
    marks = {
      shade: figure.patch({ ...at, source: sources.shade, line_color: null }),
      off: figure.scatter({ ...at, source: sources.off, size: 3, line_color: null, marker: "circle" }),
      sampled: figure.scatter({ ...at, source: sources.sampled, size: 3, line_color: null, fill_color: colour, fill_alpha: 0.45, marker: "circle" }),
      lines: figure.multi_line({ xs: { field: "xs" }, ys: { field: "ys" }, line_color: { field: "k" }, line_dash: { field: "d" }, line_width: 1.4, source: sources.lines }),
      bars: figure.segment({ x0: { field: "x0" }, y0: { field: "y0" }, x1: { field: "x1" }, y1: { field: "y1" }, line_color: { field: "k" }, line_alpha: 0.4, source: sources.bars }),
      minor: scatter({ source: sources.minor, line_alpha: 0.5 }),
      front: scatter({ source: sources.front, line_width: 1.5 }),
      focus: figure.scatter({ ...at, source: sources.focus, size: 17, fill_color: null, line_width: 2.5, marker: "circle" }),
      chosen: figure.scatter({ ...at, source: sources.chosen, size: 21, fill_color: null, line_width: 1.2, marker: "circle" }),
    };
    [figure.below[0], figure.left[0]].forEach((axis, dimension) => {
      axis.ticker = new Bokeh.FixedTicker({ ticks: [] });
      axis.axis_label_text_font_style = "normal";
      for (const grid of figure.center) if (grid.dimension === dimension) grid.ticker = axis.ticker;
    });
    for (const range of [figure.x_range, figure.y_range]) range.properties.end.change.connect(() => ticking());
    for (const range of [figure.x_range, figure.y_range]) range.properties.start.change.connect(() => ticking());
    figure.on_event("mousemove", e => dse.act.hover(chart.near(e.x, e.y), e.sx, e.sy));
    figure.on_event("mouseleave", () => dse.act.hover(-1));
    figure.on_event("tap", e => dse.act.choose(chart.near(e.x, e.y)));
    figure.on_event("selectiongeometry", e => {
      const box = e.geometry, { x, y } = chart.scales;
      dse.act.brush({
        x: dse.state.x, y: dse.state.y,
        x0: x.back(box.x0), x1: x.back(box.x1), y0: y.back(box.y0), y1: y.back(box.y1),
      });
    });
    return Bokeh.Plotting.show(figure, element).then(shown => { view = shown; });
  };

  chart.drag = name => { for (const [key, tool] of Object.entries(tools)) tool.active = key === name; };

  chart.restyle = () => {
    const c = dse.theme();
    const font = getComputedStyle(document.body).fontFamily;
    for (const axis of [...figure.below, ...figure.left]) {
      Object.assign(axis, {
        axis_label_text_color: c.ink, major_label_text_color: c.muted, axis_line_color: c.line, major_tick_line_color: c.line,
        minor_tick_line_color: null, axis_label_text_font: font, major_label_text_font: font,
        axis_label_text_font_size: "13px", major_label_text_font_size: "12px", axis_label_standoff: 8,
      });
    }
    for (const grid of figure.center) if ("grid_line_color" in grid) Object.assign(grid, { grid_line_color: c.line, grid_line_alpha: 0.45 });
    marks.shade.glyph.fill_color = c.shade;
    marks.off.glyph.fill_color = c.pale;
    marks.focus.glyph.line_color = c.accent;
    marks.chosen.glyph.line_color = c.ink;
  };

  // The point nearest to a place of the chart, within reach of the pointer; -1 where there is none.
  chart.near = (x, y) => {
    const kx = view.frame.bbox.width / (figure.x_range.end - figure.x_range.start);
    const ky = view.frame.bbox.height / (figure.y_range.end - figure.y_range.start);
    let best = -1, least = Infinity;
    const { visible } = dse.state;
    for (let i = dse.count - 1; i >= 0; i--) {
      if (!visible[i]) continue;
      const dx = (chart.X[i] - x) * kx, dy = (chart.Y[i] - y) * ky;
      // A stored point is taken before a sampled one that lies nearer.
      const d = (dx * dx + dy * dy) * (dse.kind[i] === dse.SAMPLED ? 4 : 1);
      if (d < least) least = d, best = i;
    }
    return least <= 144 ? best : -1;
  };

  // Pixels of a point within the chart's element.
  chart.place = i => {
    const box = view.frame.bbox, { x_range: h, y_range: v } = figure;
    return [
      box.left + (chart.X[i] - h.start) / (h.end - h.start) * box.width,
      box.top + (1 - (chart.Y[i] - v.start) / (v.end - v.start)) * box.height,
    ];
  };

  chart.ring = (which, i) => { sources[which].data = i < 0 ? { x: [], y: [] } : { x: [chart.X[i]], y: [chart.Y[i]] }; };

  function ticking() {
    const sides = [[figure.below[0], figure.x_range, "x", 110], [figure.left[0], figure.y_range, "y", 60]];
    for (const [axis, range, which, pixels] of sides) {
      const length = view ? view.frame.bbox[which === "x" ? "width" : "height"] : 600;
      const values = dse.ticks(chart.scales[which], range.start, range.end, Math.max(3, length / pixels));
      const places = values.map(v => chart.scales[which].at(v));
      axis.major_label_overrides = new Map(places.map((p, k) => [p, dse.tickText(values[k])]));
      axis.ticker.ticks = places;
    }
  }

  // Limits that hold every stored point, and all but the outermost of those drawn at random.
  function fit(which, name) {
    const values = dse.numbers(name), ends = [], far = [];
    const { shownOf } = dse.state;
    const interval = dse.page.losses.names.includes(name) ? LOSS_ENDS.map(end => dse.numbers(name + end)) : [];
    for (let i = 0; i < dse.count; i++) {
      if (!shownOf[i] || Number.isNaN(values[i])) continue;
      if (dse.kind[i] === dse.SAMPLED) { far.push(values[i]); continue; }
      for (const column of [values, ...interval]) if (!Number.isNaN(column[i])) ends.push(column[i]);
    }
    const reach = values => {
      let low = Infinity, high = -Infinity;
      for (const v of values) low = v < low ? v : low, high = v > high ? v : high;
      return high >= low ? [low, high] : [0, 1];
    };
    // The stored points say which scale suits: the others can only lie behind them.
    const scale = chart.scales[which] = dse.scaleOf(name, ...reach(ends.length ? ends : far));
    let [low, high] = reach([...ends, ...dse.bulk(far.filter(v => !Number.isNaN(scale.at(v))), OUTLIERS)]);
    if (scale.kind === "linear" && low >= 0 && low < 0.5 * high) low = 0;
    let [start, end] = [scale.at(low), scale.at(high)];
    const margin = 0.05 * (end - start || Math.abs(end) || 1);
    if (!(scale.kind === "linear" && low === 0)) start -= margin;
    return [start, end + margin];
  }

  chart.axes = () => {
    const { x, y } = dse.state;
    chart.scales = {};
    const [[x0, x1], [y0, y1]] = [fit("x", x), fit("y", y)];
    chart.X = dse.numbers(x).map(chart.scales.x.at);
    chart.Y = dse.numbers(y).map(chart.scales.y.at);
    figure.x_range.setv({ start: x0, end: x1 });
    figure.y_range.setv({ start: y0, end: y1 });
    figure.below[0].axis_label = dse.label(x);
    figure.left[0].axis_label = dse.label(y);
    ticking();
  };

  // Colours: of algorithms by number, or a column's values on a scale.
  chart.colours = () => {
    const { colour } = dse.state;
    if (colour === "algorithm") {
      mapper.setv({ palette: dse.names.map(dse.colourOf), low: -0.5, high: dse.names.length - 0.5 });
      chart.C = Float64Array.from(dse.algorithm);
      chart.ends = null;
      return;
    }
    const values = dse.numbers(colour), all = [];
    for (let i = 0; i < dse.count; i++) if (dse.state.shownOf[i] && !Number.isNaN(values[i])) all.push(values[i]);
    const [low, high] = all.length ? dse.bulk(all, OUTLIERS / 2) : [0, 1];
    const scale = dse.scaleOf(colour, low, high);
    chart.C = values.map(scale.at);
    const span = scale.at(high) - scale.at(low) || 1;
    mapper.setv({ palette: dse.palette(STEPS), low: scale.at(low), high: scale.at(low) + span, nan_color: dse.theme().pale });
    chart.ends = [low, high];
  };

  // Indices of the points of a list that no other beats in both coordinates, best x first.
  function envelope(list) {
    const { x, y } = dse.state, up = name => dse.known.get(name).better === "more" ? -1 : 1;
    const X = chart.X, Y = chart.Y, sx = up(x), sy = up(y), found = [];
    const order = list.filter(i => Number.isFinite(X[i]) && Number.isFinite(Y[i]))
      .sort((a, b) => sx * (X[a] - X[b]) || sy * (Y[a] - Y[b]));
    for (const i of order) if (!found.length || sy * Y[i] < sy * Y[found[found.length - 1]]) found.push(i);
    return found;
  }

  // Draw what the state shows.
  chart.draw = () => {
    const { visible, shownOf, x, y } = dse.state, { X, Y, C } = chart;
    const off = [], sampled = [], stored = new Map();
    for (let i = 0; i < dse.count; i++) {
      if (!shownOf[i] || !Number.isFinite(X[i]) || !Number.isFinite(Y[i])) continue;
      if (!visible[i]) off.push(i);
      else if (dse.kind[i] === dse.SAMPLED) sampled.push(i);
      else {
        const key = dse.run[i] * 256 + dse.algorithm[i];
        if (!stored.has(key)) stored.set(key, []);
        stored.get(key).push(i);
      }
    }
    const pick = (values, list) => {
      const found = new Float64Array(list.length);
      for (let k = 0; k < found.length; k++) found[k] = values[list[k]];
      return found;
    };
    const plain = list => ({ x: pick(X, list), y: pick(Y, list), c: pick(C, list) });
    marks.sampled.glyph.size = { value: sampled.length > CROWD ? 2 : 3 }; // before its points: every change is work
    sources.off.data = plain(off);
    sources.sampled.data = plain(sampled);
    const ordered = [x, y].every(name => dse.known.get(name).better);
    const lines = { xs: [], ys: [], k: [], d: [] };
    let top = [], rest = [];
    const shade = { x: [], y: [] }, theme = dse.theme();
    chart.envelopes = [];
    for (const [key, list] of [...stored].sort((a, b) => a[0] - b[0])) {
      const run = key >> 8, name = dse.names[key & 255];
      const line = ordered ? envelope(list) : list.slice().sort((a, b) => X[a] - X[b]);
      const within = new Set(line);
      top = top.concat(line), rest = rest.concat(list.filter(i => !within.has(i)));
      chart.envelopes.push({ run, name, line });
      if (!ordered || !line.length) continue;
      const [xs, ys] = stairs(line);
      lines.xs.push(xs), lines.ys.push(ys), lines.d.push(dse.dashOf(run));
      lines.k.push(dse.state.colour === "algorithm" ? dse.colourOf(name) : theme.muted);
      if (name === RIVAL && !shade.x.length) {
        const floor = dse.known.get(y).better === "more" ? figure.y_range.start - 99 : figure.y_range.end + 99;
        shade.x = [...xs, xs[xs.length - 1], xs[0]], shade.y = [...ys, floor, floor];
      }
    }
    const drawn = list => ({
      ...plain(list), m: list.map(i => dse.page.looks[dse.names[dse.algorithm[i]]].marker),
      f: list.map(i => dse.run[i] ? 0 : 1), s: list.map(() => 9),
    });
    sources.shade.data = shade;
    sources.lines.data = lines;
    sources.bars.data = bars(top, theme);
    sources.minor.data = { ...drawn(rest), s: rest.map(() => 6), f: rest.map(i => dse.run[i] ? 0 : 0.35) };
    sources.front.data = drawn(top);
    chart.ring("focus", dse.state.focused);
    chart.ring("chosen", dse.state.chosen);
  };

  // The staircase through an envelope, on to the far end of the horizontal axis.
  function stairs(line) {
    const more = dse.known.get(dse.state.x).better === "more", xs = [], ys = [];
    const far = more ? figure.x_range.start - 99 : figure.x_range.end + 99;
    line.forEach((i, k) => {
      if (k) xs.push(chart.X[i]), ys.push(chart.Y[line[k - 1]]);
      xs.push(chart.X[i]), ys.push(chart.Y[i]);
    });
    return [[...xs, far], [...ys, chart.Y[line[line.length - 1]]]];
  }

  // 95 % intervals of losses, on whichever axis shows them.
  function bars(list, theme) {
    const found = { x0: [], y0: [], x1: [], y1: [], k: [] };
    for (const which of ["x", "y"]) {
      const name = dse.state[which], { at } = chart.scales[which];
      if (!dse.page.losses.names.includes(name) || !dse.known.has(name)) continue;
      const [low, high] = LOSS_ENDS.map(end => dse.numbers(name + end));
      for (const i of list) {
        if (Number.isNaN(low[i]) || Number.isNaN(high[i])) continue;
        const ends = which === "x" ? [at(low[i]), chart.Y[i], at(high[i]), chart.Y[i]] : [chart.X[i], at(low[i]), chart.X[i], at(high[i])];
        ["x0", "y0", "x1", "y1"].forEach((key, k) => found[key].push(ends[k]));
        found.k.push(dse.state.colour === "algorithm" ? dse.colourOf(dse.names[dse.algorithm[i]]) : theme.muted);
      }
    }
    return found;
  }
})();
