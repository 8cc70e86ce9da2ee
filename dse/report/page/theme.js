"use strict";
// Colours of light and dark, and the marks of algorithms and runs.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // Viridis of matplotlib at even steps: rises in lightness, so it reads without colour vision too.
  const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26838f", "#1f9d8a", "#6cce5a", "#b6de2b", "#fee825"];
  const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];

  dse.theme = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(["ink", "muted", "line", "ground", "pale", "shade", "accent"]
      .map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
  };
  dse.onTheme = action => dark.addEventListener("change", action);
  dse.colourOf = name => dse.page.looks[name][dark.matches ? "dark" : "light"];
  dse.dashOf = run => DASHES[run % DASHES.length];

  dse.palette = steps => Array.from({ length: steps }, (_, k) => {
    // On a dark ground the darkest end would vanish.
    const p = (dark.matches ? 0.18 : 0) + (dark.matches ? 0.82 : 0.95) * (k / (steps - 1));
    const at = p * (VIRIDIS.length - 1), i = Math.min(VIRIDIS.length - 2, Math.floor(at));
    const [a, b] = [VIRIDIS[i], VIRIDIS[i + 1]].map(c => [1, 3, 5].map(j => parseInt(c.slice(j, j + 2), 16)));
    return "#" + a.map((v, j) => Math.round(v + (b[j] - v) * (at - i)).toString(16).padStart(2, "0")).join("");
  });

  const SHAPES = { // within a square of 12
    circle: "M6 1.5a4.5 4.5 0 1 0 .01 0z", square: "M2 2h8v8H2z", triangle: "M6 1.5L11 10.5H1z",
    inverted_triangle: "M6 10.5L11 1.5H1z", diamond: "M6 .8L11.2 6 6 11.2.8 6z",
    plus: "M4.3 1h3.4v3.3H11v3.4H7.7V11H4.3V7.7H1V4.3h3.3z", hex: "M6 1l4.5 2.5v5L6 11 1.5 8.5v-5z",
    star: "M6 .8l1.5 3.5 3.8.3-2.9 2.5.9 3.7L6 8.8 2.7 10.8l.9-3.7L.7 4.6l3.8-.3z",
  };
  // The mark of an algorithm as a picture of its own, hollow where the chart's is.
  dse.markOf = (name, hollow = false, colour = dse.colourOf(name)) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const marker = dse.page.looks[name].marker, stroke = marker === "x" || hollow;
    path.setAttribute("d", marker === "x" ? "M2 2L10 10M10 2L2 10" : SHAPES[marker] || SHAPES.circle);
    path.setAttribute("fill", stroke ? "none" : colour);
    path.setAttribute("stroke", stroke ? colour : "none");
    path.setAttribute("stroke-width", "1.8");
    for (const [key, value] of Object.entries({ viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" })) {
      svg.setAttribute(key, value);
    }
    svg.append(path);
    return svg;
  };
})();
