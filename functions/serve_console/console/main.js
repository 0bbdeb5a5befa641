// The frame: who is signed in, which view is shown, and when it is reloaded.

import { ApiError } from "./api.js";
import { el, update } from "./dom.js";
import { deviceView } from "./device.js";
import { rejectedView } from "./rejected.js";
import { releaseView } from "./release.js";
import { releasesView } from "./releases.js";
import { SessionLost, signIn, signOut, start, user } from "./session.js";

const SOON_SECONDS = 5;
const LATER_SECONDS = 60;
/**
 * What the frame shows; `load` refreshes it and tells whether something is under way.
 * @typedef {{ title: string, element: Node, load(signal: AbortSignal): Promise<boolean> }} View
 */
/** @import { Child } from "./dom.js" */
/** @import { Frame } from "./release.js" */

/** @type {[RegExp, (subject: string, query: URLSearchParams, frame: Frame) => View][]} */
const VIEWS = [
  [/^#\/releases\/([0-9a-f]{32})$/, releaseView],
  [/^#\/releases$/, releasesView],
  [/^#\/devices\/([0-9A-Fa-f:-]{12,17})$/, deviceView],
  [/^#\/rejected$/, rejectedView],
];
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** @type {View} */
let view;
/** @type {AbortController | undefined} */
let reading;
/** @type {number | undefined} */
let timer;
let failures = 0;
let isAboutReading = false; // the notice is about a failed reading, and goes away when one succeeds
let isFirst = true; // nothing was shown yet, so the browser's own focus is right

/**
 * An element of index.html.
 * @param {string} id
 */
const by = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

async function begin() {
  listen();
  try {
    const back = await start();
    if (back !== null && back !== location.hash) location.hash = back;
  } catch (error) {
    return showSignIn(error instanceof SessionLost ? error.message : "The console could not start. Try again.");
  }
  return show();
}

function listen() {
  addEventListener("hashchange", show);
  document.addEventListener("visibilitychange", () => document.hidden || !isLive() || !user() || read());
  by("skip").addEventListener("click", (event) => { event.preventDefault(); by("main").focus(); });
  by("sign-out").addEventListener("click", leave);
  by("find-go").addEventListener("click", find);
  macInput().addEventListener("keydown", (event) => event.key === "Enter" && find());
  by("live").addEventListener("click", () => {
    by("live").setAttribute("aria-pressed", String(!isLive()));
    if (isLive()) read();
    else clearTimeout(timer);
  });
}

const macInput = () => /** @type {HTMLInputElement} */ (by("find-mac"));

function find() {
  const mac = macInput().value.trim();
  if (/^[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}$/.test(mac)) location.hash = `#/devices/${mac.toUpperCase()}`;
  else notify(`“${mac}” is not a MAC address. Enter one such as AA:BB:CC:DD:EE:FF.`);
}

async function show() {
  const who = user();
  clearTimeout(timer);
  reading?.abort();
  notify();
  if (!who) return showSignIn();
  for (const id of ["views", "find", "who", "foot"]) by(id).hidden = false;
  by("user").textContent = who.mayAct ? who.name : `${who.name} (viewer)`;
  const [path = "", query] = (location.hash || "#/releases").split("?");
  const found = match(path);
  if (!found) return replaceHash("#/releases");
  for (const link of by("views").querySelectorAll("a")) {
    if (path.startsWith(link.hash)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view = found.make(found.subject, new URLSearchParams(query), { who, read, did });
  failures = 0;
  update(by("main"), view.element);
  return read(true);
}

/**
 * The view of a path, and its subject: an id or a MAC.
 * @param {string} path
 */
function match(path) {
  for (const [pattern, make] of VIEWS) {
    const found = pattern.exec(path);
    if (found) return { make, subject: found[1] ?? "" };
  }
  return null;
}

/**
 * @param {string} hash
 * @returns {Promise<void>}
 */
function replaceHash(hash) {
  history.replaceState(null, "", hash);
  return show();
}

/** Load the view, and reload it while it is shown. */
async function read(isNew = false) {
  clearTimeout(timer);
  reading?.abort();
  const mine = new AbortController();
  reading = mine;
  try {
    const isUnderWay = await view.load(mine.signal);
    if (mine.signal.aborted) return;
    failures = 0;
    if (isAboutReading) notify();
    by("updated").textContent = `Updated ${CLOCK.format(new Date())}`;
    again(isUnderWay ? SOON_SECONDS : LATER_SECONDS);
  } catch (error) {
    if (mine.signal.aborted) return;
    fail(error);
  }
  document.title = `${view.title} · Firmware console`;
  if (isNew && !isFirst) focusHeading();
  isFirst = false;
}

/**
 * After an action: report its result, and show the new state.
 * @param {string} what
 * @param {unknown} [error]
 */
async function did(what, error) {
  await read();
  if (error instanceof SessionLost) showLostSession();
  else if (error instanceof Error) notify(error.message);
  else by("announcer").textContent = what;
  // The button that was pressed may be gone.
  if (document.activeElement === document.body) focusHeading();
}

/** @param {unknown} error */
function fail(error) {
  if (error instanceof SessionLost) return showLostSession();
  if (!(error instanceof ApiError)) console.error(error);
  const isPassing = !(error instanceof ApiError) || error.status === 0 || error.status === 429 || error.status >= 500;
  isAboutReading = true;
  if (!isPassing) return notify(error.message);
  failures += 1;
  const seconds = Math.min(SOON_SECONDS * 2 ** (failures - 1), LATER_SECONDS);
  again(seconds);
  const what = error instanceof ApiError ? error.message : "The console could not show this page.";
  return notify(`${what} Trying again in ${seconds} seconds.`, el("button", { type: "button", id: "retry", onclick: () => read() }, "Try now"));
}

/** @param {number} seconds */
function again(seconds) {
  if (!isLive()) return;
  timer = setTimeout(() => (document.hidden ? again(seconds) : read()), seconds * 1000);
}

/** Sign out. Nothing stays on the page, which the browser's Back would bring up again. */
async function leave() {
  clearTimeout(timer);
  reading?.abort();
  showSignIn();
  try {
    await signOut();
  } catch {
    showSignIn("You are signed out in this tab only, because the sign-in service cannot be reached. When it can, sign in and sign out again.");
  }
}

const isLive = () => by("live").getAttribute("aria-pressed") === "true";

function showLostSession() {
  notify("Your session has ended. Sign in again to return to this page.", el("button", { type: "button", id: "sign-in-again", class: "primary", onclick: signIn }, "Sign in"));
  by("sign-in-again").focus();
}

function showSignIn(message = "") {
  for (const id of ["views", "find", "who", "foot"]) by(id).hidden = true;
  notify(message);
  update(by("main"), el("section", { class: "welcome" },
    el("h1", {}, "Firmware console"),
    el("p", {}, "Sign in to see which releases are going out to your devices, their progress, and what fails."),
    el("button", { type: "button", class: "primary", id: "sign-in", onclick: signIn }, "Sign in")));
}

/**
 * Show a message, or clear it. The view stays.
 * @param {string} text
 * @param {...Child} children
 */
function notify(text = "", ...children) {
  const shown = by("notice");
  if (!text) isAboutReading = false;
  if (shown.firstChild?.textContent === text && children.length === 0) return;
  update(shown, text ? [el("p", {}, text), ...children] : []);
}

function focusHeading() {
  const heading = by("main").querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus();
}

begin();
