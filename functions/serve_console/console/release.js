// One release: its progress, its failures and their reasons, and the actions that it allows.

import { act, describeRelease, describeTimeline, listDevices } from "./api.js";
import { askFirst, label } from "./actions.js";
import { el, sized, update, updater } from "./dom.js";
import {
  DEVICE_STATES, actor, address, bytes, deviceBadge, devices, duration, fact, number, percent, releaseBadge, time,
} from "./format.js";
import { pages } from "./paging.js";
import { plot } from "./plot.js";
import { ended, isAtWork, isUnderWay, notified, reported } from "./progress.js";

/** @import { Child } from "./dom.js" */
/** @import { User } from "./session.js" */
/** @typedef {Api.ReleaseDetails} Release */
/** @typedef {(action: Api.Action, release: Release) => Promise<void>} DoIt */
/**
 * What a release needs of the page around it: who is looking, a way to reload the view, and to report on an action.
 * @typedef {{ who: User, read(): Promise<void>, did(what: string, error?: unknown): Promise<void> }} Frame
 */

const PAGE = 50;
// Counting the past of a whole fleet takes longer than reading its present state.
const TIMELINE_EVERY = 3;

/**
 * @param {string} id
 * @param {URLSearchParams} query
 * @param {Frame} frame
 */
export function releaseView(id, query, frame) {
  /** @param {string} name */
  const part = (name) => el("div", { id: `part-${name}` });
  const parts = {
    head: part("head"), state: part("state"), tiles: part("tiles"), waves: part("waves"),
    timeline: part("timeline"), failing: part("failing"), about: part("about"), log: part("log"),
  };
  update(parts.head, el("h1", {}, "Release"), el("p", { class: "faint" }, "Loading…"));
  const list = deviceList(id, query.get("devices") ?? "failing", frame);
  const draws = {
    head: updater(parts.head, (/** @type {Release} */ release) => head(release, frame.who, doIt)),
    state: updater(parts.state, state),
    tiles: updater(parts.tiles, tiles),
    waves: updater(parts.waves, waves),
    failing: updater(parts.failing, reasons),
    about: updater(parts.about, about),
    log: updater(parts.log, log),
  };
  const picture = plot(parts.timeline);
  let readings = 0;

  /** @type {DoIt} */
  async function doIt(action, release) {
    if (!(await askFirst(action, release))) return;
    try {
      await act(id, action);
      await frame.did(`Done: ${action.action}.`);
    } catch (error) {
      await frame.did("", error);
    }
  }

  const view = {
    title: "Release",
    element: el("article", { class: "release" },
      parts.head, parts.state, parts.tiles, parts.waves, parts.timeline,
      el("section", { class: "card", "aria-labelledby": "devices-heading" }, el("h2", { id: "devices-heading" }, "Devices"), parts.failing, list.element),
      parts.about, parts.log),
    /** @param {AbortSignal} signal */
    async load(signal) {
      const release = await describeRelease(id, signal);
      view.title = `${release.product} ${release.version}`;
      for (const draw of Object.values(draws)) draw(release);
      const isLive = isUnderWay(release) || isAtWork(release);
      const [timeline] = await Promise.all([
        readings % TIMELINE_EVERY === 0 || !isLive ? describeTimeline(id, signal) : null,
        list.load(release, signal),
      ]);
      readings += 1;
      if (timeline) picture.draw(timeline.points, wavesOut(release), isLive);
      return isLive;
    },
  };
  return view;
}

/**
 * @param {Release} release
 * @param {User} who
 * @param {DoIt} doIt
 */
function head(release, who, doIt) {
  return [
    el("nav", { class: "crumbs", "aria-label": "Breadcrumb" }, el("a", { href: "#/releases" }, "Releases"), " / ", el("a", { href: address("#/releases", { product: release.product }) }, release.product)),
    el("div", { class: "head" },
      el("h1", {}, `${release.product} `, el("span", { class: "version" }, release.version)),
      releaseBadge(release),
      who.mayAct ? el("div", { class: "actions", role: "group", "aria-label": "Actions" }, release.allowed_actions.map((action) =>
        el("button", { type: "button", id: `do-${action.action}`, class: action.action === "abort" ? "danger" : false, onclick: () => doIt(action, release) }, label(action)))) : null),
    release.changelog ? el("p", { class: "changelog-whole" }, release.changelog) : null,
  ];
}

/** @param {Release} release */
function state(release) {
  if (release.state === "withdrawn") return el("p", { class: "callout bad" }, `Withdrawn: ${release.withdrawn_because}.`);
  if (release.is_aborted) return el("p", { class: "callout bad" }, "An operator aborted this release; it is being withdrawn.");
  if (release.is_paused && release.state !== "published") return el("p", { class: "callout" }, "Paused: no further wave starts until someone resumes it.");
  return release.warnings.map((warning) => el("p", { class: "callout" }, warning));
}

/** @param {Release} release */
function tiles(release) {
  const heard = reported(release);
  const reached = Math.max(notified(release), heard);
  /** @type {(label: string, count: number, kind?: string) => Child} */
  const tile = (label, count, kind = "") => el("div", { class: `tile ${kind}` }, el("dt", {}, label), el("dd", {}, number(count)));
  return el("dl", { class: "tiles" },
    tile("Notified", reached),
    tile("Installed", release.devices.installed ?? 0, "good"),
    tile("In progress", heard - ended(release)),
    tile("Failing", release.failing.count, release.failing.count ? "bad" : ""),
    tile("Silent", reached - heard));
}

/** @param {Release} release */
function waves(release) {
  if (!release.is_staged) return null;
  const bar = el("div", { class: "track", "aria-hidden": "true" }, sized({ class: "reached" }, "width", release.cohort_percent),
    release.waves.slice(0, -1).map((wave) => sized({ class: "mark" }, "left", wave.percent)));
  return el("section", { class: "card", "aria-labelledby": "waves-heading" },
    el("h2", { id: "waves-heading" }, "Waves"),
    bar,
    el("ol", { class: "waves" }, release.waves.map((wave) => el("li", { class: status(release, wave)[0] },
      el("strong", {}, `Wave ${wave.number}`),
      el("span", {}, percent(wave.percent)),
      el("span", { class: "faint" }, size(release, wave)),
      el("span", { class: "faint" }, status(release, wave)[1])))),
    el("p", { class: "next faint" }, next(release)));
}

/**
 * @param {Release} release
 * @param {Api.Wave} wave
 */
const size = (release, wave) => (release.population ? `about ${devices(Math.round(release.population * wave.percent / 100))}` : null);

/**
 * @param {Release} release
 * @param {Api.Wave} wave
 * @returns {[kind: string, text: string]}
 */
function status(release, wave) {
  if (wave.is_published) {
    const isPresent = wave.number === release.waves_published && release.state === "rolling_out";
    return isPresent ? ["present", `watched for ${duration(wave.soak)}`] : ["out", "sent"];
  }
  if (release.state === "withdrawn" || release.is_aborted) return ["off", "will not be sent"];
  return ["waits", wave.number === release.waves_published + 1 ? "next" : "waiting"];
}

/** @param {Release} release */
function next(release) {
  const [latest] = release.decisions;
  if (release.state === "published") return "All waves were sent and watched.";
  if (!latest || release.state === "withdrawn" || release.is_paused) return null;
  if (latest.step === "wait") return ["Next check: ", time(latest.until), ` (${latest.why})`];
  return null;
}

/** @param {Release} release */
const wavesOut = (release) => release.decisions
  .filter((decision) => decision.step === "publish")
  .map((decision) => ({ at: decision.decided_at, name: `Wave ${decision.wave}` }));

/** @param {Release} release */
function reasons(release) {
  if (!release.failing.count) return el("p", { class: "faint" }, "No failing devices");
  return [
    el("p", {}, el("strong", {}, `${devices(release.failing.count)} failing`), ", for these reasons:"),
    el("ul", { class: "reasons" }, release.failing.reasons.map((reason) => {
      const share = (100 * reason.count) / release.failing.count;
      return el("li", {},
        el("span", { class: "count" }, number(reason.count)),
        el("span", { class: "what" }, el("code", {}, reason.reason ?? "no reason given"), " ", deviceBadge(reason.state)),
        sized({ class: `bar-of ${reason.state}`, "aria-hidden": "true" }, "width", Math.max(2, share)));
    })),
  ];
}

/**
 * The devices in a state, in pages.
 * @param {string} id
 * @param {string} chosen
 * @param {Frame} frame
 */
function deviceList(id, chosen, frame) {
  let wanted = chosen;
  const cursors = [""]; // Where each page begins, up to the current one.
  const body = el("div", {});
  const draw = updater(body, table);
  const select = el("select", { id: "device-state", onchange: () => {
    wanted = select.value;
    cursors.splice(0, cursors.length, "");
    frame.read();
  } },
  el("option", { value: "failing", selected: wanted === "failing" }, "Failing"),
  el("option", { value: "all", selected: wanted === "all" }, "All that reported"),
  Object.entries(DEVICE_STATES).map(([value, label]) => el("option", { value, selected: wanted === value }, label)));

  /**
   * @param {Api.DevicePage} found
   * @param {number} from
   * @param {number} total
   */
  function table(found, from, total) {
    if (!found.devices.length) return el("p", { class: "faint" }, wanted === "failing" ? null : "No devices");
    return [
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Devices" }, el("table", {},
        el("thead", {}, el("tr", {}, ["Device", "Reason", "State", "Running", "Since"].map((label) => el("th", { scope: "col" }, label)))),
        el("tbody", {}, found.devices.map((device) => el("tr", {},
          el("td", {}, el("a", { class: "mono", id: `device-${device.mac}`, href: `#/devices/${device.mac}` }, device.mac)),
          el("td", { class: "reason" }, device.reason ?? "–"),
          el("td", {}, deviceBadge(device.state), device.state === "downloading" && device.progress !== null ? ` ${percent(device.progress)}` : null),
          el("td", {}, device.running_version ?? "–"),
          el("td", {}, time(device.updated_at))))))),
      pages("Pages of devices",
        el("button", { type: "button", id: "devices-back", disabled: cursors.length === 1, onclick: () => { cursors.pop(); frame.read(); } }, "Previous"),
        el("span", { class: "faint" }, `${number(from + 1)}–${number(from + found.devices.length)} of ${number(Math.max(total, from + found.devices.length))}`),
        el("button", { type: "button", id: "devices-on", disabled: !found.next, onclick: () => { cursors.push(found.next ?? ""); frame.read(); } }, "Next")),
    ];
  }

  /** @param {Release} release */
  function total(release) {
    if (wanted === "failing") return release.failing.count;
    if (wanted === "all") return reported(release);
    return release.devices[wanted] ?? 0;
  }

  return {
    element: el("div", {}, el("div", { class: "filters left" }, el("label", { for: "device-state" }, "Show"), select), body),
    /**
     * @param {Release} release
     * @param {AbortSignal} signal
     */
    async load(release, signal) {
      const wish = { state: wanted === "all" ? "" : wanted, after: cursors.at(-1) ?? "", limit: String(PAGE) };
      draw(await listDevices(id, wish, signal), (cursors.length - 1) * PAGE, total(release));
    },
  };
}

/** @param {Release} release */
const about = (release) => el("section", { class: "card", "aria-labelledby": "about-heading" },
  el("h2", { id: "about-heading" }, "Details"),
  el("dl", { class: "facts inside" },
    fact("Signing key", el("code", {}, release.keyid)),
    fact("Targets", release.target_count === null ? "the whole fleet" : devices(release.target_count)),
    fact("Chip", release.chip),
    fact("Image", bytes(release.image_size)),
    fact("SHA-256", el("code", {}, release.image_sha256)),
    fact("Sequence", String(release.sequence)),
    fact("Registered", time(release.registered_at)),
    fact("Published", time(release.published_at)),
    fact("Expires", time(release.expires_at)),
    fact("Downgrade", release.allow_downgrade ? "allowed" : "not allowed")),
  el("details", { id: "manifest" }, el("summary", {}, "Manifest"), el("pre", { tabindex: "0" }, JSON.stringify(release.manifest, null, 2))));

/** @param {Release} release */
const log = (release) => [
  el("section", { class: "card", "aria-labelledby": "actions-heading" },
    el("h2", { id: "actions-heading" }, "Operator actions"),
    release.actions.length ? el("ul", { class: "plain" }, release.actions.map((entry) => el("li", {}, time(entry.at), " ", el("strong", {}, actor(entry.caller)), ` ${PAST[entry.action] ?? entry.action}`))) : el("p", { class: "faint" }, "No actions yet")),
  el("section", { class: "card", "aria-labelledby": "decisions-heading" },
    el("h2", { id: "decisions-heading" }, "Rollout decisions"),
    release.decisions.length ? decisions(release.decisions) : el("p", { class: "faint" }, "No decisions yet")),
];

/** @type {Record<string, string>} */
const PAST = { pause: "paused the release", resume: "resumed the release", promote: "promoted the release", abort: "aborted the release" };

const NUMBERS = /** @type {const} */ (["expected", "reported", "ended", "installed", "failed"]);

/** @param {Api.Decision[]} all */
const decisions = (all) => el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Decisions" }, el("table", {},
  el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "When"), el("th", { scope: "col" }, "Decision"),
    ["Expected", "Reported", "Finished", "Installed", "Failed"].map((label) => el("th", { scope: "col", class: "count" }, label)))),
  el("tbody", {}, all.map((decision) => el("tr", {},
    el("td", {}, time(decision.decided_at)),
    el("td", { class: "reason" }, explain(decision)),
    NUMBERS.map((key) => el("td", { class: "count" }, number(decision.numbers[key]))))))));

/**
 * @param {Api.Decision} decision
 * @returns {Child}
 */
function explain(decision) {
  switch (decision.step) {
    case "publish": return `Send wave ${decision.wave}: ${percent(decision.percent ?? 0)} of devices`;
    case "wait": return ["Wait until ", time(decision.until), `: ${decision.why}`];
    case "abort": return `Abort: ${decision.why}`;
    case "hold": return "Paused";
    case "complete": return "Complete";
  }
}
