"use strict";
// Axes: a value's place on a linear axis, and ticks one can read, for linear, logarithmic and loss scales.
(() => {
  const { losses } = dse.page;
  const linear = { at: v => v, back: p => p };
  const logarithmic = { at: v => v > 0 ? Math.log10(v) : NaN, back: p => 10 ** p };
  // Linear around zero, logarithmic beyond.
  const symmetric = {
    at: v => Math.abs(v) <= losses.linear_below ? v / losses.linear_below * losses.linear_share
      : Math.sign(v) * (losses.linear_share + Math.log10(Math.abs(v) / losses.linear_below)),
    back: p => Math.abs(p) <= losses.linear_share ? p / losses.linear_share * losses.linear_below
      : Math.sign(p) * losses.linear_below * 10 ** (Math.abs(p) - losses.linear_share),
  };

  // The scale that suits a column whose values lie between low and high.
  dse.scaleOf = (name, low, high) => {
    if (losses.names.includes(name)) return { ...symmetric, kind: "loss" };
    const column = dse.known.get(name);
    if (low > 0 && (high / low > 30 || (column && column.log && high / low > 5))) {
      return { ...logarithmic, kind: "log" };
    }
    return { ...linear, kind: "linear" };
  };

  function even(low, high, about) {
    const raw = (high - low) / about, decade = 10 ** Math.floor(Math.log10(raw));
    const step = decade * [1, 2, 5, 10].find(m => m * decade >= raw * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-12) + step * 1e-9; k++) {
      found.push(Number((k * step).toPrecision(12)));
    }
    return found;
  }

  function decades(low, high, marks) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of marks) found.push(Number(`${m}e${e}`));
    }
    return found.filter(v => v >= low * 0.9999 && v <= high * 1.0001);
  }

  // Values to mark between two places of an axis, `about` of them.
  dse.ticks = (scale, start, end, about) => {
    const low = scale.back(start), high = scale.back(end);
    if (!(high > low)) return [];
    let found = [];
    if (scale.kind === "log") {
      for (const marks of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
        const more = decades(low, high, marks);
        if (!found.length || more.length <= about * 1.3) found = more;
      }
    } else if (scale.kind === "loss") {
      const sizes = decades(losses.linear_below, Math.max(Math.abs(low), Math.abs(high), losses.linear_below), [1, 3]);
      found = [...sizes.map(v => -v), 0, ...sizes].filter(v => v >= low && v <= high);
    }
    if (found.length < 4) found = even(low, high, about);
    const room = (end - start) / about * 0.45; // labels must not run into each other
    const kept = [];
    for (const v of found.sort((a, b) => a - b)) {
      if (!kept.length || scale.at(v) - scale.at(kept[kept.length - 1]) >= room) kept.push(v);
    }
    return kept;
  };

  dse.tickText = value => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size >= 1e6 || size < 1e-4 ? value.toExponential() : String(Number(value.toPrecision(6)));
    return text.replace("e+", "e").replace("-", "−");
  };

  // Places between which all but a few of the values lie.
  dse.bulk = (values, share) => {
    const step = Math.ceil(values.length / 10000); // a part tells as much
    const sorted = Float64Array.from({ length: Math.floor(values.length / step) || 0 }, (_, k) => values[k * step]).sort();
    if (!sorted.length) return [NaN, NaN];
    const at = p => sorted[Math.round(p * (sorted.length - 1))];
    return [at(share), at(1 - share)];
  };
})();
