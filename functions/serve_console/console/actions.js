// Asking before anything is done: what will happen, and to how many devices.

import { el } from "./dom.js";
import { devices, number, percent } from "./format.js";
import { ended, told } from "./progress.js";

/** @type {Record<Api.Action["action"], string>} */
const VERBS = { pause: "Pause", resume: "Resume", promote: "Promote", abort: "Abort" };

/**
 * What the button of an action says.
 * @param {Api.Action} action
 */
export const label = ({ action, wave }) => (action === "promote" ? `${VERBS[action]} to wave ${wave}` : VERBS[action]);

/**
 * Ask in a dialog. Gives whether the answer is yes.
 * @param {Api.Action} action
 * @param {Api.ReleaseDetails} release
 * @returns {Promise<boolean>}
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
  // Neither a slip of the hand nor Enter does what cannot be undone.
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
 * What an action does, in sentences with numbers of devices.
 * @param {Api.Action} action
 * @param {Api.ReleaseDetails} release
 * @returns {string[]}
 */
function consequences(action, release) {
  const reached = told(release);
  const waiting = Math.max(0, release.population - reached);
  const others = release.population ? `the other ${devices(waiting)}` : "the others, of which none is known yet,";
  switch (action.action) {
    case "pause":
      return [
        `No further wave starts: ${others} wait until somebody resumes the release.`,
        `The ${devices(reached)} that were told keep it, and go on with it.`,
      ];
    case "resume":
      return [
        `The rollout goes on where it was: ${others} are told in the remaining waves, unless too many devices fail.`,
      ];
    case "promote":
      return promotion(action, release, reached);
    case "abort":
      return [
        `The release is withdrawn, and no device is offered it any longer: ${release.is_staged && release.state !== "published" ? `${others} never hear of it.` : "whoever has not asked for it yet never gets it."}`,
        `Of the ${devices(reached)} that were told, ${number(Math.max(0, reached - ended(release)))} have not ended yet: those that wait or download are told to stop.`,
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
  if (!wave) throw new Error(`The API offers wave ${action.wave}, and the release has no such wave.`);
  const more = Math.max(0, Math.round((release.population * wave.percent) / 100) - reached);
  const who = release.population ? `about ${devices(more)} more` : "its devices, of which none is known yet";
  return [
    `Wave ${wave.number} goes out now instead of later, to ${who}: ${percent(wave.percent)} of ${release.population ? devices(release.population) : "the fleet"} in all.`,
    `Wave ${release.waves_published} is not watched any longer. ${release.rollout?.window ? "The release’s window still holds." : "The thresholds still hold for later waves."}`,
  ];
}
