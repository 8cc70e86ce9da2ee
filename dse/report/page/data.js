"use strict";
// What the page holds, decoded: every point of every run in one numbering, columns on demand.
const dse = {};

(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const FRONT = 0, STORED = 1, SAMPLED = 2; // on its run's front; on its algorithm's only; drawn at random

  function bytes(text) {
    const raw = atob(text), found = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
    return found;
  }

  function floats({ floats: text, bits }) {
    const buffer = bytes(text).buffer;
    return bits === 32 ? new Float32Array(buffer) : new Float64Array(buffer);
  }

  const codesOf = ({ codes, width }) => width === 8 ? bytes(codes) : new Uint16Array(bytes(codes).buffer);
  const present = v => v === null || Number.isNaN(v) ? null : v;

  class Table {
    constructor(packed, run, first) {
      this.packed = packed, this.run = run, this.first = first, this.rows = packed.rows;
      this.readers = new Map();
    }
    // A reader of a column: row -> value, null where there is none.
    column(name) {
      if (!this.readers.has(name)) this.readers.set(name, this.reader(this.packed.columns[name]));
      return this.readers.get(name);
    }
    reader(column) {
      if (column === undefined) return () => null;
      if ("all" in column) return () => column.all;
      if ("texts" in column) return i => column.texts[i];
      if ("by" in column) {
        const at = this.column(column.by), read = this.reader(column.of);
        return i => read(at(i));
      }
      if ("floats" in column) {
        const values = floats(column);
        return i => present(values[i]);
      }
      const codes = codesOf(column), levels = Array.isArray(column.levels) ? column.levels : Array.from(floats(column.levels), present);
      return i => levels[codes[i]];
    }
    // The different values of a column, and null where a row has none.
    levels(column) {
      if (column === undefined) return [];
      if ("all" in column) return [column.all];
      if ("texts" in column) return column.texts;
      if ("by" in column) return this.levels(column.of);
      if ("floats" in column) return Array.from(floats(column), present);
      return Array.isArray(column.levels) ? column.levels : Array.from(floats(column.levels), present);
    }
  }

  const tables = [];
  let count = 0;
  // Sampled points first: what is drawn later lies above.
  for (const which of ["sample", "front"]) {
    page.runs.forEach((run, r) => {
      const packed = which === "front" ? run.front : run.sample && run.sample.points;
      if (!packed || !packed.rows) return;
      const table = new Table(packed, r, count);
      table.kind = which;
      tables.push(table);
      count += packed.rows;
    });
  }

  const names = Object.keys(page.looks), code = new Map(names.map((name, i) => [name, i]));
  const kind = new Uint8Array(count), run = new Uint16Array(count), algorithm = new Uint8Array(count);
  for (const table of tables) {
    const name = table.column("algorithm"), on = table.column("on_front");
    for (let i = 0; i < table.rows; i++) {
      const at = table.first + i;
      run[at] = table.run;
      algorithm[at] = code.get(name(i));
      kind[at] = table.kind === "sample" ? SAMPLED : on(i) ? FRONT : STORED;
    }
  }

  function home(i) { // the table a point is in
    let low = 0, high = tables.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (tables[middle].first <= i) low = middle; else high = middle - 1;
    }
    return tables[low];
  }

  const known = new Map(page.columns.map(column => [column.name, column]));
  const cache = new Map();

  Object.assign(dse, {
    page, FRONT, STORED, SAMPLED, tables, count, kind, run, algorithm, names, known,
    // A value as it was stored.
    value(name, i) {
      const table = home(i);
      return table.column(name)(i - table.first);
    },
    // All values of a column in the unit they are shown in; NaN where there is none or it is a word.
    numbers(name) {
      if (!cache.has(name)) {
        const found = new Float64Array(count).fill(NaN), scale = known.has(name) ? known.get(name).scale : 1;
        for (const table of tables) {
          if (!(name in table.packed.columns)) continue;
          const read = table.column(name);
          for (let i = 0; i < table.rows; i++) {
            const value = read(i);
            if (typeof value === "number") found[table.first + i] = value * scale;
          }
        }
        cache.set(name, found);
      }
      return cache.get(name);
    },
    // The different values of a column, in one run or all: numbers in order, words as they come.
    levels(name, of = -1) {
      const found = new Set();
      for (const table of tables) {
        if (of < 0 || table.run === of) for (const level of table.levels(table.packed.columns[name])) found.add(level);
      }
      found.delete(null);
      const list = [...found];
      return list.every(v => typeof v === "number") ? list.sort((a, b) => a - b) : list;
    },
    // Whether any point has a value of a column.
    has: name => tables.some(table => name in table.packed.columns),
    label(name) {
      const column = known.get(name);
      if (!column) return name;
      const owner = column.owner && column.owner !== "hardware" ? column.owner + " " : "";
      return owner + column.title + (column.unit ? ` (${column.unit})` : "");
    },
  });
})();

// Elements with attributes and children; words become text, never markup.
dse.make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
};

// A number with so many significant digits, as the terminal prints it.
dse.text = (value, digits = 3) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value === "boolean" || typeof value === "string") return String(value) || "none";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(digits - 1).replace("e+", "e").replace(/^-/, "−");
  const rounded = Number(value.toPrecision(digits));
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(rounded))));
  return rounded.toFixed(decimals).replace("-", "−");
};

dse.sentence = words => `${words[0].toUpperCase()}${words.slice(1)}.`;

// A knob or parameter as one would type it.
dse.brief = value => typeof value !== "number" ? dse.text(value)
  : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(Number(value.toPrecision(6)));
