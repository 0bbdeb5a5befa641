// Navigation between the pages of a list.

import { el } from "./dom.js";
import { address } from "./format.js";

/** @import { Child } from "./dom.js" */

/**
 * Links to the first and the next page of a view that lists the newest first; nothing if there is only one page.
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
 * The controls below a list.
 * @param {string} label
 * @param {...Child} steps
 */
export const pages = (label, ...steps) => el("nav", { class: "pages", "aria-label": label }, steps);
