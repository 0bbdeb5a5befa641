// Confirming an action: what it will do, and to how many devices.

import { el } from "./dom.js";
import { devices, number, percent } from "./format.js";
import { ended, notified } from "./progress.js";

/** @type {Record<Api.Action["action"], string>} */
const VERBS = { pause: "Pause", resume: "Resume", promote: "Promote", abort: "Abort" };

/**
 * What the button of an action says.
 * @param {Api.Action} action
 */
export const label = ({ action, wave }) => (action === "promote" ? `${VERBS[action]} to wave ${wave}` : VERBS[action]);

/**
 * Ask for confirmation in a dialog.
 * @param {Api.Action} action
 * @param {Api.ReleaseDetails} release
 * @returns {Promise<boolean>} Whether the answer is yes.
 */
export function askFirst(action, release) {
  const what = `${release.product} ${release.version}`;
  const cancel = el("button", { type: "button", id: "cancel", onclick: () => dialog.close("no") }, "Cancel");
  const confirm = el("button", { type: "button", id: "confirm", class: action.action === "abort" ? "danger filled" : "primary", onclick: () => dialog.close("yes") }, label(action));
  const dialog = el("dialog", { "aria-labelledby": "ask", "aria-describedby": "consequences" },
    el("h2", { id: "ask" }, `${VERBS[action.action]} ${what}?`),
    el("div", { id: "consequences" }, consequences(action, release).map((sentence) => el("p", {}, sentence))),
    el("div", { class: "choices" }, cancel, confirm));
  document.body.append(dialog);
  dialog.showModal();
  // A stray Enter must not do what cannot be undone.
  cancel.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      document.getElementById(`do-${action.action}`)?.focus();
      resolve(dialog.returnValue === "yes");
    });
  });
}

/**
 * What an action will do, in sentences that name numbers of devices.
 * @param {Api.Action} action
 * @param {Api.ReleaseDetails} release
 * @returns {string[]}
 */
function consequences(action, release) {
  const reached = notified(release);
  const waiting = Math.max(0, release.population - reached);
  const others = release.population ? `the other ${devices(waiting)}` : "all other devices (none known yet)";
  switch (action.action) {
    case "pause":
      return [
        `No further wave starts: ${others} wait until someone resumes the release.`,
        `The ${devices(reached)} already notified will continue updating.`,
      ];
    case "resume":
      return [
        `The rollout continues: ${others} are notified in the remaining waves, unless too many devices fail.`,
      ];
    case "promote":
      return promotion(action, release, reached);
    case "abort":
      return [
        `The release is withdrawn and no longer offered: ${release.is_staged && release.state !== "published" ? `${others} will never receive it.` : "devices that have not fetched it yet never will."}`,
        `Of the ${devices(reached)} already notified, ${number(Math.max(0, reached - ended(release)))} have not finished yet: those still waiting or downloading are told to stop.`,
        `The ${devices(release.devices.installed ?? 0)} that installed it keep running it.`,
        "This cannot be undone.",
      ];
  }
}

/**
 * @param {Api.Action} action
 * @param {Api.ReleaseDetails} release
 * @param {number} reached
 */
function promotion(action, release, reached) {
  const wave = release.waves.find(({ number }) => number === action.wave);
  if (!wave) throw new Error(`The API allows wave ${action.wave}, but the release has no such wave.`);
  const more = Math.max(0, Math.round((release.population * wave.percent) / 100) - reached);
  return [
    release.population
      ? `Wave ${wave.number} goes out now and reaches about ${number(more)} more devices: ${percent(wave.percent)} of ${devices(release.population)} in total.`
      : `Wave ${wave.number} goes out now, to ${percent(wave.percent)} of the fleet in total. No devices are known yet.`,
    `Wave ${release.waves_published} is no longer watched. ${release.rollout?.window ? "The rollout window still applies." : "The abort thresholds still apply to later waves."}`,
  ];
}
