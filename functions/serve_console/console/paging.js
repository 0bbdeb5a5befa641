// Lists come in pages; these are the steps between them.

import { el } from "./dom.js";
import { address } from "./format.js";

/** @import { Child } from "./dom.js" */

/**
 * Links to the first and the following page of a view that lists the newest first; none where there is one page.
 * @param {string} view
 * @param {{ after: string } & Record<string, string>} query
 * @param {string | undefined} next
 */
export function pageLinks(view, query, next) {
  if (!query.after && !next) return null;
  /** @type {(text: string, after: string) => Child} */
  const link = (text, after) => el("a", { class: "button", href: address(view, { ...query, after }) }, text);
  return pages("Pages", query.after ? link("Newest", "") : null, next ? link("Older", next) : null);
}

/**
 * What leads from page to page.
 * @param {string} label
 * @param {...Child} steps
 */
export const pages = (label, ...steps) => el("nav", { class: "pages", "aria-label": label }, steps);
