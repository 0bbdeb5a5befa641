// The progress of a release, as far as it is known.

/** @type {Api.DeviceState[]} */
const ENDED = ["failed", "rejected", "rolled_back", "installed"];

/**
 * Whether the release will change without an operator's action.
 * @param {Api.Release} release
 */
export const isUnderWay = (release) =>
  release.state === "registered" || release.state === "rolling_out" || (release.is_aborted && release.state !== "withdrawn");

/**
 * Whether any device started the update and has not finished it.
 * @param {Api.ReleaseDetails} release
 */
export const isAtWork = (release) => reported(release) > ended(release);

/**
 * How many devices were notified.
 * @param {Api.ReleaseDetails} release
 */
export const notified = (release) => release.expected ?? (release.waves_published > 0 ? release.population : 0);

/**
 * How many devices sent a status.
 * @param {Api.ReleaseDetails} release
 */
export const reported = (release) => Object.values(release.devices).reduce((sum, count) => sum + count, 0);

/**
 * How many devices finished, successfully or not.
 * @param {Api.ReleaseDetails} release
 */
export const ended = (release) => ENDED.reduce((sum, state) => sum + (release.devices[state] ?? 0), 0);
