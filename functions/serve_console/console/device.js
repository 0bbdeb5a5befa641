// One device: the firmware that it runs, and what it reported about each release.

import { describeDevice } from "./api.js";
import { el, updater } from "./dom.js";
import { deviceBadge, fact, time } from "./format.js";
import { pageLinks } from "./paging.js";

/**
 * @param {string} mac
 * @param {URLSearchParams} query
 */
export function deviceView(mac, query) {
  const page = { after: query.get("after") ?? "" };
  const body = el("div", {}, el("p", { class: "faint" }, "Loading…"));
  const draw = updater(body, (/** @type {Api.Device} */ device) => [facts(device), el("h2", {}, "History"), history(device), pageLinks(`#/devices/${mac}`, page, device.next)]);
  return {
    title: mac,
    element: el("section", {}, el("div", { class: "head" }, el("h1", { class: "mono" }, mac)), body),
    /** @param {AbortSignal} signal */
    async load(signal) {
      draw(await describeDevice(mac, page, signal));
      return true;
    },
  };
}

/** @param {Api.Device} device */
const facts = (device) => el("dl", { class: "facts" },
  fact("Product", device.product ?? "–"),
  fact("Running", device.running_version ?? "–"),
  fact("Last seen", time(device.last_seen_at)),
  fact("Tags", device.tags.length ? device.tags.map((tag) => el("span", { class: "tag" }, tag)) : "none"));

/** @param {Api.Device} device */
function history(device) {
  if (!device.history.length) return el("p", { class: "empty" }, "No reports yet");
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "History" }, el("table", {},
    el("thead", {}, el("tr", {}, ["When", "Release", "State", "Reason", "Running"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, device.history.map((entry) => el("tr", {},
      el("td", {}, time(entry.last_reported_at)),
      el("td", {}, el("a", { href: `#/releases/${entry.release_id}` }, entry.version)),
      el("td", {}, deviceBadge(entry.state)),
      el("td", { class: "reason" }, entry.reason ?? "–"),
      el("td", {}, entry.running_version ?? "–"))))));
}
