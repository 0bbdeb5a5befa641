// How far a release is, as far as that is known.

import { ENDED } from "./format.js";

/** Whether a release is still to change by itself. */
export const isUnderWay = (release) =>
  release.state === "registered" || release.state === "rolling_out" || (release.is_aborted && release.state !== "withdrawn");

/** Whether devices that began have not ended. */
export const isAtWork = (release) => Object.entries(release.devices).some(([state, count]) => count > 0 && !ENDED.includes(state));

/** How many devices were told. */
export const told = (release) => release.expected ?? (release.waves_published > 0 ? release.population : 0);

/** How many devices ended, in whatever state. */
export const ended = (release) => ENDED.reduce((sum, state) => sum + (release.devices[state] ?? 0), 0);
