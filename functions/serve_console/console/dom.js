// Elements, made without ever reading a text as HTML.

/** @typedef {Node | string | null | undefined | Child[]} Child What becomes a child; texts become text nodes. */
/** @typedef {Record<string, unknown>} Attributes `onclick` and the like are listeners; false, null and undefined leave an attribute out. */

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
 * A span whose style depends on data. The Content-Security-Policy allows no attribute `style`.
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
 * Put other children into a container; what has the focus or is unfolded stays so, known by its id.
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
 * Redraw only what changed, so that nothing moves under the hands of whoever reads it.
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
