// Requests to the operators' API.

import { address } from "./format.js";
import { SessionLost, accessToken } from "./session.js";

/** The API refused, or did not answer; `message` is for people. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Read a document; `query` parameters without a value are left out. */
export function get(path, query = {}, signal = undefined) {
  return send(address(`api${path}`, query), { signal });
}

/** Do something to a release. */
export function act(releaseId, action) {
  return send(`api/releases/${releaseId}/actions`, { method: "POST", body: JSON.stringify(action) });
}

async function send(url, options) {
  let answer = await attempt(url, options, false);
  if (answer.status === 401) answer = await attempt(url, options, true);
  if (answer.status === 401) throw new SessionLost("Your session has ended.");
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw new ApiError(answer.status, document.code, document.message ?? `The API answers ${answer.status}.`);
  }
  return document;
}

async function attempt(url, options, isRefused) {
  const headers = { Authorization: await accessToken(isRefused), "Content-Type": "application/json" };
  try {
    return await fetch(url, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The API cannot be reached.");
  }
}
