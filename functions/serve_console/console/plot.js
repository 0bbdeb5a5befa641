// Devices by state over time, as stacked areas.

import { el, svg, update } from "./dom.js";
import { DEVICE_STATES, number, time } from "./format.js";

/** @typedef {Api.Timeline["points"][number]} Point How many devices were in which state at a time. */
/** @typedef {{ at: string, name: string }} Mark When a wave went out. */
/** @typedef {(value: number) => number} Scale From a value to a position in the picture. */

const HEIGHT = 240;
const MARGIN = { top: 18, right: 12, bottom: 26, left: 52 };
/**
 * From the bottom up: finished, failed, in progress.
 * @type {Api.DeviceState[]}
 */
const STACK = ["installed", "rolled_back", "rejected", "failed", "interrupted", "rebooting", "verifying", "downloading"];
const TICKS = 4;

/**
 * A plot that fills the width of its container.
 * @param {Element} container
 */
export function plot(container) {
  /** @type {[Point[], Mark[]] | undefined} */
  let drawn;
  const redraw = () => drawn && update(container, picture(...drawn, Math.max(280, container.clientWidth - 42)));
  new ResizeObserver(redraw).observe(container);
  return {
    /**
     * @param {Point[]} points
     * @param {Mark[]} waves
     * @param {boolean} isLive
     */
    draw(points, waves, isLive) {
      const latest = points.at(-1);
      drawn = [isLive && latest ? [...points, { ...latest, at: new Date().toISOString() }] : points, waves];
      redraw();
    },
  };
}

/**
 * @param {Point[]} points
 * @param {Mark[]} waves
 * @param {number} width
 */
function picture(points, waves, width) {
  const heading = el("h2", { id: "timeline-heading" }, "Devices by state over time");
  const latest = points.at(-1);
  if (!latest) {
    return el("section", { class: "card", "aria-labelledby": "timeline-heading" }, heading, el("p", { class: "faint" }, "No reports yet"));
  }
  const states = STACK.filter((state) => points.some((point) => count(point, state) > 0));
  return el("section", { class: "card", "aria-labelledby": "timeline-heading" },
    heading,
    chart(points, latest, waves, states, width),
    el("ul", { class: "legend" }, [...states].reverse().map((state) => el("li", {}, el("span", { class: `swatch ${state}` }), `${DEVICE_STATES[state]} ${number(count(latest, state))}`))),
    el("details", { id: "timeline-table" }, el("summary", {}, "Show as table"), table(points, states)));
}

/**
 * @param {Point} point
 * @param {Api.DeviceState} state
 */
const count = (point, state) => point.devices[state] ?? 0;

/**
 * @param {Point[]} points
 * @param {Point} latest
 * @param {Mark[]} waves
 * @param {Api.DeviceState[]} states
 * @param {number} width
 */
function chart(points, latest, waves, states, width) {
  const end = Date.parse(latest.at);
  const begin = Math.min(...[...points, ...waves].map((event) => Date.parse(event.at)));
  // A single moment needs a width as well.
  const length = Math.max(end - begin, 1000);
  const most = Math.max(1, ...points.map((point) => states.reduce((sum, state) => sum + count(point, state), 0)));
  const step = tickStep(most);
  const top = Math.ceil(most / step) * step;
  /** @type {Scale} */
  const x = (moment) => MARGIN.left + ((moment - begin) / length) * (width - MARGIN.left - MARGIN.right);
  /** @type {Scale} */
  const y = (height) => HEIGHT - MARGIN.bottom - (height / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const summary = `${states.map((state) => `${DEVICE_STATES[state]}: ${number(count(latest, state))}`).join(", ")} now.`;
  return svg("svg", { class: "plot", role: "img", "aria-label": `Devices by state over time. ${summary}`, viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT },
    range(0, top, step).map((tick) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "label", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, number(tick)),
    ]),
    areas(points, end, states, x, y),
    waves.map((wave) => {
      const left = x(Date.parse(wave.at));
      const isLate = left > width - 80;
      return [
        svg("line", { class: "wave", x1: left, x2: left, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
        svg("text", { class: "label", x: left + (isLate ? -4 : 4), y: MARGIN.top - 5, "text-anchor": isLate ? "end" : "start" }, wave.name),
      ];
    }),
    labels(begin, length, width).map(({ moment, text, anchor }) => svg("text", { class: "label", x: x(moment), y: HEIGHT - 7, "text-anchor": anchor }, text)));
}

/**
 * An area for each state, in steps: a count holds until the next point.
 * @param {Point[]} points
 * @param {number} end
 * @param {Api.DeviceState[]} states
 * @param {Scale} x
 * @param {Scale} y
 */
function areas(points, end, states, x, y) {
  // A single moment is as wide as the picture.
  const last = points.length === 1 ? end + 1000 : end;
  let steps = points.map((point, index) => {
    const next = points[index + 1];
    return { point, left: x(Date.parse(point.at)), right: x(next ? Date.parse(next.at) : last), ground: 0 };
  });
  return states.map((state) => {
    const raised = steps.map((step) => ({ ...step, ground: step.ground + count(step.point, state) }));
    const path = [...outline(raised, y), ...outline(steps, y).reverse()];
    steps = raised;
    return svg("path", { class: `area ${state}`, d: `M${path.map(([left, height]) => `${left.toFixed(1)},${height.toFixed(1)}`).join("L")}Z` });
  });
}

/**
 * @param {{ left: number, right: number, ground: number }[]} steps
 * @param {Scale} y
 * @returns {[number, number][]}
 */
const outline = (steps, y) => steps.flatMap(({ left, right, ground }) => [[left, y(ground)], [right, y(ground)]]);

/**
 * 1, 2 or 5 times a power of ten.
 * @param {number} most
 */
function tickStep(most) {
  const rough = most / TICKS;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  return [1, 2, 5].map((factor) => factor * power).find((step) => step >= rough) ?? 10 * power;
}

/**
 * @param {number} from
 * @param {number} to
 * @param {number} step
 */
const range = (from, to, step) => Array.from({ length: Math.round((to - from) / step) + 1 }, (_, index) => from + index * step);

/**
 * Times along the lower edge.
 * @param {number} begin
 * @param {number} length
 * @param {number} width
 */
function labels(begin, length, width) {
  const format = new Intl.DateTimeFormat(undefined, timeStyle(length));
  const last = width < 480 ? 2 : 4;
  return range(0, last, 1).map((index) => {
    const moment = begin + (length * index) / last;
    return { moment, text: format.format(moment), anchor: index === 0 ? "start" : index === last ? "end" : "middle" };
  });
}

/**
 * @param {number} length
 * @returns {Intl.DateTimeFormatOptions}
 */
function timeStyle(length) {
  const day = 86_400_000;
  if (length > 2 * day) return { month: "short", day: "numeric" };
  if (length > day) return { weekday: "short", hour: "2-digit", minute: "2-digit" };
  if (length >= 600_000) return { hour: "2-digit", minute: "2-digit" };
  return { hour: "2-digit", minute: "2-digit", second: "2-digit" };
}

/**
 * @param {Point[]} points
 * @param {Api.DeviceState[]} states
 */
const table = (points, states) => el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Devices by state over time" }, el("table", {},
  el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "When"), states.map((state) => el("th", { scope: "col", class: "count" }, DEVICE_STATES[state])))),
  el("tbody", {}, points.map((point) => el("tr", {}, el("td", {}, time(point.at)), states.map((state) => el("td", { class: "count" }, number(count(point, state)))))))));
