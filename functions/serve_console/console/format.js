// Times, numbers and names of states in readable form.

import { el } from "./dom.js";

/** @import { Child } from "./dom.js" */

const NUMBER = new Intl.NumberFormat();
const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const UTC = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });
/** @type {[number, string][]} */
const DURATIONS = [[86400, "d"], [3600, "h"], [60, "min"]];

/** @type {Record<Api.ReleaseState, string>} */
export const RELEASE_STATES = {
  registered: "Waiting",
  rolling_out: "Rolling out",
  published: "Published",
  withdrawn: "Withdrawn",
};

/**
 * In the order that a device goes through them.
 * @type {Record<Api.DeviceState, string>}
 */
export const DEVICE_STATES = {
  downloading: "Downloading",
  verifying: "Verifying",
  rebooting: "Rebooting",
  interrupted: "Interrupted",
  failed: "Failed",
  rejected: "Rejected",
  rolled_back: "Rolled back",
  installed: "Installed",
};

/** @param {number} value */
export const number = (value) => NUMBER.format(value);

/**
 * `1 device`, `2 devices`.
 * @param {number} count
 */
export const devices = (count) => `${number(count)} ${count === 1 ? "device" : "devices"}`;

/**
 * A percentage without trailing zeros.
 * @param {number} value
 */
export const percent = (value) => `${NUMBER.format(value)} %`;

/**
 * A time in the viewer's time zone; UTC is in the tooltip.
 * @param {string | null | undefined} text
 */
export function time(text) {
  if (!text) return el("span", { class: "faint" }, "–");
  const moment = new Date(text);
  return el("time", { datetime: text, title: `${UTC.format(moment)} UTC` }, LOCAL.format(moment));
}

/**
 * Seconds such as `86400s`, as `1 d`.
 * @param {string} text
 */
export function duration(text) {
  const seconds = Number.parseInt(text, 10);
  const [length, unit] = DURATIONS.find(([size]) => seconds % size === 0) ?? [1, "s"];
  return `${number(seconds / length)} ${unit}`;
}

/** @param {number} count */
export function bytes(count) {
  return count < 1024 * 1024 ? `${number(Math.round(count / 1024))} KiB` : `${number(+(count / 1024 / 1024).toFixed(2))} MiB`;
}

/**
 * A path with a query; parameters without a value are left out.
 * @param {string} path
 * @param {Record<string, string>} query
 */
export function address(path, query) {
  const given = Object.entries(query).filter(([, value]) => value);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/**
 * A name and its value, for a description list.
 * @param {string} name
 * @param {...Child} value
 */
export const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

/**
 * The short name of a caller: `cognito:<user name>:<sub>`, or an ARN.
 * @param {string} caller
 */
export function actor(caller) {
  const name = caller.startsWith("cognito:") ? caller.split(":").slice(1, -1).join(":") : caller.split(/[:/]/).pop();
  return el("span", { title: caller }, name);
}

/**
 * @param {string} kind
 * @param {string} text
 */
export const badge = (kind, text) => el("span", { class: `badge ${kind}` }, text);

/** @param {Api.Release} release */
export const releaseBadge = (release) => {
  if (release.is_aborted && release.state !== "withdrawn") return badge("withdrawn", "Withdrawing");
  if (release.is_paused && release.state !== "withdrawn" && release.state !== "published") return badge("paused", "Paused");
  return badge(release.state, RELEASE_STATES[release.state]);
};

/** @param {Api.DeviceState} state */
export const deviceBadge = (state) => badge(`device ${state}`, DEVICE_STATES[state]);
