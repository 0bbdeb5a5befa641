// The drops that the pipeline rejected, and why.

import { listRejectedDrops } from "./api.js";
import { el, updater } from "./dom.js";
import { badge, time } from "./format.js";
import { pageLinks } from "./paging.js";

/**
 * @param {string} _
 * @param {URLSearchParams} query
 */
export function rejectedView(_, query) {
  const page = { after: query.get("after") ?? "" };
  const list = el("div", {}, el("p", { class: "faint" }, "Loading…"));
  const draw = updater(list, (/** @type {Api.RejectedDropPage} */ found) => [
    found.is_complete ? null : el("p", { class: "callout" }, "Too many drops were rejected to list them all. The bucket has the rest, under rejected/."),
    found.drops.length ? el("ul", { class: "cards" }, found.drops.map(card)) : el("p", { class: "empty" }, "No rejected drops in the last 90 days"),
    pageLinks("#/rejected", page, found.next),
  ]);
  return {
    title: "Rejected drops",
    element: el("section", {},
      el("div", { class: "head" }, el("h1", {}, "Rejected drops")),
      el("p", { class: "lead" }, "A rejected drop changes nothing. The bucket keeps its files under rejected/ for 90 days."),
      list),
    /** @param {AbortSignal} signal */
    async load(signal) {
      draw(await listRejectedDrops(page, signal));
      return false;
    },
  };
}

/** @param {Api.RejectedDrop} drop */
const card = (drop) => el("li", { class: "card" },
  el("div", { class: "card-head" }, el("h2", {}, drop.stem), badge("failed", drop.code), el("span", { class: "faint" }, time(drop.at))),
  el("p", {}, drop.message),
  drop.versions ? el("details", { id: `drop-${drop.stem}-${drop.at}` },
    el("summary", {}, `Files (rejected by ${drop.stage})`),
    el("ul", { class: "plain" }, drop.versions.map((version) => el("li", {}, el("code", {}, version.key), " ", el("span", { class: "faint" }, `version ${version.version_id}`))))) : null);
