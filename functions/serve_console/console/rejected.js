// What the pipeline rejected, and why.

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
    found.is_complete ? null : el("p", { class: "callout" }, "There are so many rejected drops that some are not listed here; the bucket has them all, under rejected/."),
    found.drops.length ? el("ul", { class: "cards" }, found.drops.map(card)) : el("p", { class: "empty" }, "Nothing was rejected within 90 days."),
    pageLinks("#/rejected", page, found.next),
  ]);
  return {
    title: "Rejected drops",
    element: el("section", {},
      el("div", { class: "head" }, el("h1", {}, "Rejected drops")),
      el("p", { class: "lead" }, "They changed nothing, and are kept in the bucket under rejected/ for 90 days."),
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
    el("summary", {}, `Files, and the stage that rejected them: ${drop.stage}`),
    el("ul", { class: "plain" }, drop.versions.map((version) => el("li", {}, el("code", {}, version.key), " ", el("span", { class: "faint" }, `version ${version.version_id}`))))) : null);
