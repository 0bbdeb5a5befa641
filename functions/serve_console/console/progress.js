// How far a release is, as far as that is known.

/** @type {Api.DeviceState[]} */
const ENDED = ["failed", "rejected", "rolled_back", "installed"];

/**
 * Whether a release is still to change by itself.
 * @param {Api.Release} release
 */
export const isUnderWay = (release) =>
  release.state === "registered" || release.state === "rolling_out" || (release.is_aborted && release.state !== "withdrawn");

/**
 * Whether devices that began have not ended.
 * @param {Api.ReleaseDetails} release
 */
export const isAtWork = (release) => reported(release) > ended(release);

/**
 * How many devices were told.
 * @param {Api.ReleaseDetails} release
 */
export const told = (release) => release.expected ?? (release.waves_published > 0 ? release.population : 0);

/**
 * How many devices reported anything.
 * @param {Api.ReleaseDetails} release
 */
export const reported = (release) => Object.values(release.devices).reduce((sum, count) => sum + count, 0);

/**
 * How many devices ended, in whatever state.
 * @param {Api.ReleaseDetails} release
 */
export const ended = (release) => ENDED.reduce((sum, state) => sum + (release.devices[state] ?? 0), 0);
