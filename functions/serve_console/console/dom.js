// Elements, made without ever reading a text as HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element.
 * @param {string} name
 * @param {object} attributes `onclick` and the like are listeners; false, null and undefined leave an attribute out.
 * @param {...(Node|string|number|null|Array)} children Texts become text nodes.
 */
export function el(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, name), attributes, children);
}

function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put other children into a container; what has the focus or is unfolded stays so, known by its id. */
export function update(container, ...children) {
  const focused = container.contains(document.activeElement) ? document.activeElement.id : "";
  const unfolded = [...container.querySelectorAll("details[open]")].map((details) => details.id);
  container.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** Redraw only what changed, so that nothing moves under the hands of whoever reads it. */
export function updater(container, draw) {
  let drawn;
  return (...facts) => {
    const now = JSON.stringify(facts);
    if (now === drawn) return;
    drawn = now;
    update(container, draw(...facts));
  };
}
