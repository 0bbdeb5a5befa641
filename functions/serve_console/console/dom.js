// Builds elements. No text is ever parsed as HTML.

/** @typedef {Node | string | null | undefined | Child[]} Child What an element can contain; strings become text nodes. */
/** @typedef {Record<string, unknown>} Attributes Functions are listeners, as `onclick`; false, null and undefined leave an attribute out. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Attributes} attributes
 * @param {...Child} children
 */
export function el(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

/**
 * An SVG element.
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @param {Attributes} attributes
 * @param {...Child} children
 */
export function svg(name, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, name), attributes, children);
}

/**
 * @template {Element} Kind
 * @param {Kind} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), (event) => value(event));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...flat(children));
  return element;
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
function flat(children) {
  return children.flatMap((child) => (Array.isArray(child) ? flat(child) : child ?? []));
}

/**
 * A span placed or sized by data. The Content-Security-Policy forbids `style` attributes.
 * @param {Attributes} attributes
 * @param {"left" | "width"} property
 * @param {number} share Percent of the container's width.
 */
export function sized(attributes, property, share) {
  const span = el("span", attributes);
  span.style[property] = `${share}%`;
  return span;
}

/**
 * Replace a container's children. Elements with an id keep the focus and stay unfolded.
 * @param {Element} container
 * @param {...Child} children
 */
export function update(container, ...children) {
  const focused = container.contains(document.activeElement) ? document.activeElement?.id : "";
  const unfolded = [...container.querySelectorAll("details[open]")].map((details) => details.id);
  container.replaceChildren(...flat(children));
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/**
 * Redraw only when the facts have changed, so that the page does not move while someone is reading it.
 * @template {unknown[]} Facts
 * @param {Element} container
 * @param {(...facts: Facts) => Child} draw
 * @returns {(...facts: Facts) => void}
 */
export function updater(container, draw) {
  let drawn = "";
  return (...facts) => {
    const now = JSON.stringify(facts);
    if (now === drawn) return;
    drawn = now;
    update(container, draw(...facts));
  };
}
