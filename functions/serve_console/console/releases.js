// The list of releases.

import { listReleases } from "./api.js";
import { el, sized, updater } from "./dom.js";
import { RELEASE_STATES, address, devices, percent, releaseBadge, time } from "./format.js";
import { pageLinks } from "./paging.js";
import { isUnderWay } from "./progress.js";

/** @typedef {{ product: string, state: string, after: string }} Filter */

/**
 * @param {string} _
 * @param {URLSearchParams} query
 */
export function releasesView(_, query) {
  const filter = { product: query.get("product") ?? "", state: query.get("state") ?? "", after: query.get("after") ?? "" };
  const list = el("div", {}, el("p", { class: "faint" }, "Loading…"));
  const draw = updater(list, (/** @type {Api.ReleasePage} */ found) => (found.releases.length ? [rows(found.releases), pageLinks("#/releases", filter, found.next)] : empty(filter)));
  const element = el("section", {}, el("div", { class: "head" }, el("h1", {}, "Releases"), filters(filter)), list);
  return {
    title: "Releases",
    element,
    /** @param {AbortSignal} signal */
    async load(signal) {
      const found = await listReleases(filter, signal);
      draw(found);
      return found.releases.some(isUnderWay);
    },
  };
}

/** @param {Filter} filter */
function filters(filter) {
  const apply = () => {
    location.hash = address("#/releases", { product: product.value.trim(), state: state.value });
  };
  const product = el("input", { id: "filter-product", type: "search", value: filter.product, autocomplete: "off", spellcheck: "false", maxlength: 63, onchange: apply });
  const state = el("select", { id: "filter-state", onchange: apply },
    el("option", { value: "" }, "All"),
    Object.entries(RELEASE_STATES).map(([value, name]) => el("option", { value, selected: value === filter.state }, name)));
  return el("div", { class: "filters" },
    el("label", { for: "filter-product" }, "Product"), product,
    el("label", { for: "filter-state" }, "State"), state);
}

/** @param {Api.Release[]} releases */
const rows = (releases) => el("ul", { class: "rows" }, releases.map((release) => el("li", {},
  el("a", { class: "row", href: `#/releases/${release.release_id}`, id: `release-${release.release_id}` },
    el("span", { class: "name" }, el("strong", {}, release.product), " ", el("span", { class: "version" }, release.version)),
    el("span", {}, releaseBadge(release)),
    el("span", { class: "reach" }, reach(release)),
    el("span", { class: "when faint" }, time(release.registered_at)),
    el("span", { class: "changelog faint" }, release.withdrawn_because ?? release.changelog)))));

/** @param {Api.Release} release */
function reach(release) {
  const target = release.target_count === null ? "the fleet" : devices(release.target_count);
  if (release.state === "registered") return `For ${target}`;
  return [el("span", { class: "meter" }, sized({}, "width", release.cohort_percent)), `${percent(release.cohort_percent)} of ${target}`];
}

/** @param {Filter} filter */
function empty(filter) {
  if (filter.product || filter.state || filter.after) {
    return el("div", { class: "empty" }, el("p", {}, "No matching releases"), el("a", { class: "button", href: "#/releases" }, "Show all"));
  }
  const commands = [
    "ota-sign sign build/app.bin --product demo --version 1.0.0 --changelog \"The first one.\"",
    "aws s3 cp build/app.bin s3://BUCKET/inbox/demo/",
    "aws s3 cp build/app.manifest.json s3://BUCKET/inbox/demo/",
  ].join("\n");
  return el("div", { class: "empty" },
    el("h2", {}, "No releases yet"),
    el("p", {}, "Sign an image and drop it into the inbox; the pipeline does the rest. BUCKET is the stack output BucketName."),
    el("pre", { tabindex: "0" }, commands),
    el("p", {}, "If no release appears, check the ", el("a", { href: "#/rejected" }, "rejected drops"), "."));
}
