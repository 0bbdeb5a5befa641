// Requests to the operators' API. `make lint` derives the types in `Api` from api/operator.yaml.

import { address } from "./format.js";
import { SessionLost, accessToken } from "./session.js";

/** The API refused a request or did not answer; `message` is for people. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** @type {(query: { product: string, state: string, after: string }, signal: AbortSignal) => Promise<Api.ReleasePage>} */
export const listReleases = (query, signal) => get("/releases", query, signal);

/** @type {(id: string, signal: AbortSignal) => Promise<Api.ReleaseDetails>} */
export const describeRelease = (id, signal) => get(`/releases/${id}`, {}, signal);

/** @type {(id: string, signal: AbortSignal) => Promise<Api.Timeline>} */
export const describeTimeline = (id, signal) => get(`/releases/${id}/timeline`, {}, signal);

/** @type {(id: string, query: { state: string, after: string, limit: string }, signal: AbortSignal) => Promise<Api.DevicePage>} */
export const listDevices = (id, query, signal) => get(`/releases/${id}/devices`, query, signal);

/** @type {(query: { after: string }, signal: AbortSignal) => Promise<Api.RejectedDropPage>} */
export const listRejectedDrops = (query, signal) => get("/rejected-drops", query, signal);

/** @type {(mac: string, query: { after: string }, signal: AbortSignal) => Promise<Api.Device>} */
export const describeDevice = (mac, query, signal) => get(`/devices/${encodeURIComponent(mac)}`, query, signal);

/** @type {(id: string, action: Api.Action) => Promise<Api.Release>} */
export const act = (id, action) => send(`api/releases/${id}/actions`, { method: "POST", body: JSON.stringify(action) });

/**
 * @param {string} path
 * @param {Record<string, string>} query
 * @param {AbortSignal} signal
 */
function get(path, query, signal) {
  return send(address(`api${path}`, query), { signal });
}

/**
 * @param {string} url
 * @param {RequestInit} options
 */
async function send(url, options) {
  let answer = await attempt(url, options, false);
  if (answer.status === 401) answer = await attempt(url, options, true);
  if (answer.status === 401) throw new SessionLost("Your session has ended.");
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw new ApiError(answer.status, document.code, document.message ?? `The API answered ${answer.status}.`);
  }
  return document;
}

/**
 * @param {string} url
 * @param {RequestInit} options
 * @param {boolean} isRefused
 */
async function attempt(url, options, isRefused) {
  const headers = { Authorization: await accessToken(isRefused), "Content-Type": "application/json" };
  try {
    return await fetch(url, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The API is unreachable.");
  }
}
