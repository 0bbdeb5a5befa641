// Devices by state over time, as stacked areas.

import { el, svg, update } from "./dom.js";
import { DEVICE_STATES, number, time } from "./format.js";

const HEIGHT = 240;
const MARGIN = { top: 18, right: 12, bottom: 26, left: 52 };
// From the ground up: what is done, what failed, what is under way.
const STACK = ["installed", "rolled_back", "rejected", "failed", "rebooting", "verifying", "downloading"];
const TICKS = 4;

/** A plot in a container. `draw(points, waves, isLive)` draws it; it follows the container's width. */
export function plot(container) {
  let drawn;
  const redraw = () => drawn && update(container, picture(...drawn, Math.max(280, container.clientWidth - 42)));
  new ResizeObserver(redraw).observe(container);
  return {
    draw(points, waves, isLive) {
      drawn = [isLive && points.length ? [...points, { ...points.at(-1), at: new Date().toISOString() }] : points, waves];
      redraw();
    },
  };
}

function picture(points, waves, width) {
  const heading = el("h2", { id: "timeline-heading" }, "Devices by state over time");
  if (!points.length) {
    return el("section", { class: "card", "aria-labelledby": "timeline-heading" }, heading, el("p", { class: "faint" }, "No device has reported yet."));
  }
  const states = STACK.filter((state) => points.some((point) => point.devices[state] > 0));
  const latest = points.at(-1).devices;
  return el("section", { class: "card", "aria-labelledby": "timeline-heading" },
    heading,
    chart(points, waves, states, width),
    el("ul", { class: "legend" }, [...states].reverse().map((state) => el("li", {}, el("span", { class: `swatch ${state}` }), `${DEVICE_STATES[state]} ${number(latest[state])}`))),
    el("details", { id: "timeline-table" }, el("summary", {}, "As a table"), table(points, states)));
}

function chart(points, waves, states, width) {
  const times = points.map((point) => Date.parse(point.at));
  const begin = Math.min(times[0], ...waves.map((wave) => Date.parse(wave.at)));
  // A single moment has a width too.
  const length = Math.max(times.at(-1) - begin, 1000);
  const most = Math.max(1, ...points.map((point) => states.reduce((sum, state) => sum + point.devices[state], 0)));
  const step = tickStep(most);
  const top = Math.ceil(most / step) * step;
  const x = (moment) => MARGIN.left + ((moment - begin) / length) * (width - MARGIN.left - MARGIN.right);
  const y = (count) => HEIGHT - MARGIN.bottom - (count / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const summary = `${states.map((state) => `${DEVICE_STATES[state]}: ${number(points.at(-1).devices[state])}`).join(", ")} at the end.`;
  return svg("svg", { class: "plot", role: "img", "aria-label": `Devices by state over time. ${summary}`, viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT },
    range(0, top, step).map((count) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(count), y2: y(count) }),
      svg("text", { class: "label", x: MARGIN.left - 8, y: y(count) + 4, "text-anchor": "end" }, number(count)),
    ]),
    areas(points, times, states, x, y),
    waves.map((wave) => {
      const left = x(Date.parse(wave.at));
      const isLate = left > width - 80;
      return [
        svg("line", { class: "wave", x1: left, x2: left, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
        svg("text", { class: "label", x: left + (isLate ? -4 : 4), y: MARGIN.top - 5, "text-anchor": isLate ? "end" : "start" }, wave.name),
      ];
    }),
    labels(begin, length, width).map(([moment, text, anchor]) => svg("text", { class: "label", x: x(moment), y: HEIGHT - 7, "text-anchor": anchor }, text)));
}

/** An area for each state, in steps: a count holds until the next point. */
function areas(points, times, states, x, y) {
  const ground = points.map(() => 0);
  const end = times.at(-1);
  return states.map((state) => {
    const upper = points.map((point, index) => ground[index] + point.devices[state]);
    const path = [...outline(times, upper, end, x, y), ...outline(times, ground, end, x, y).reverse()];
    upper.forEach((count, index) => { ground[index] = count; });
    return svg("path", { class: `area ${state}`, d: `M${path.map(([left, height]) => `${left.toFixed(1)},${height.toFixed(1)}`).join("L")}Z` });
  });
}

function outline(times, counts, end, x, y) {
  return times.flatMap((moment, index) => [
    [x(moment), y(counts[index])],
    [x(Math.max(times[index + 1] ?? end, moment + (times.length === 1 ? 1000 : 0))), y(counts[index])],
  ]);
}

/** 1, 2 or 5 times a power of ten. */
function tickStep(most) {
  const rough = most / TICKS;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

const range = (from, to, step) => Array.from({ length: Math.round((to - from) / step) + 1 }, (_, index) => from + index * step);

function labels(begin, length, width) {
  const day = 86_400_000;
  const style = length > 2 * day ? { month: "short", day: "numeric" } : length > day ? { weekday: "short", hour: "2-digit", minute: "2-digit" } : { hour: "2-digit", minute: "2-digit", ...(length < 600_000 ? { second: "2-digit" } : {}) };
  const format = new Intl.DateTimeFormat(undefined, style);
  const count = width < 480 ? 2 : 4;
  return range(0, count, 1).map((index) => {
    const moment = begin + (length * index) / count;
    return [moment, format.format(moment), index === 0 ? "start" : index === count ? "end" : "middle"];
  });
}

const table = (points, states) => el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Devices by state over time" }, el("table", {},
  el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "When"), states.map((state) => el("th", { scope: "col", class: "count" }, DEVICE_STATES[state])))),
  el("tbody", {}, points.map((point) => el("tr", {}, el("td", {}, time(point.at)), states.map((state) => el("td", { class: "count" }, number(point.devices[state]))))))));
