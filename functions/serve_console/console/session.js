// Signing in with Cognito: authorization code with PKCE (RFC 7636), no secret in the page.
// The tokens are in the tab's sessionStorage: they survive a reload, but not closing the tab.

const TOKENS = "tokens";
const ATTEMPT = "sign-in";
const PAGE = location.origin + location.pathname;
// A token could expire while a request is under way.
const EARLY_SECONDS = 60;

/** @typedef {{ access: string, refresh: string }} Tokens */
/** @typedef {{ name: string, mayAct: boolean }} User */

/** @type {{ signInUrl: string, clientId: string }} */
let configuration;
/** @type {Promise<Tokens> | undefined} */
let refreshing;

/** Nobody is signed in, or the session has ended. */
export class SessionLost extends Error {}

/** Load the configuration, and finish a sign-in that comes back from Cognito. Returns the view to show, or null. */
export async function start() {
  const answer = await fetch("config.json");
  if (!answer.ok) throw new Error(`config.json: ${answer.status}`);
  configuration = await answer.json();
  const query = new URLSearchParams(location.search);
  const attempt = JSON.parse(sessionStorage.getItem(ATTEMPT) ?? "null");
  if (!query.has("state")) return null;
  sessionStorage.removeItem(ATTEMPT);
  const view = attempt?.view ?? "";
  history.replaceState(null, "", location.pathname + view);
  // An attacker's code would sign the user in as the attacker (RFC 6749 section 10.12).
  if (!attempt || query.get("state") !== attempt.state) throw new SessionLost("This sign-in did not start in this tab.");
  const code = query.get("code");
  if (code === null) throw new SessionLost(query.get("error_description") ?? "The sign-in was not completed.");
  await fetchTokens({ grant_type: "authorization_code", code, redirect_uri: PAGE, code_verifier: attempt.verifier });
  return view;
}

/** Go to the sign-in page, and return to the current view afterwards. */
export async function signIn() {
  const attempt = { state: random(), verifier: random(), view: location.hash };
  sessionStorage.setItem(ATTEMPT, JSON.stringify(attempt));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(attempt.verifier));
  location.assign(`${configuration.signInUrl}/oauth2/authorize?${new URLSearchParams({
    response_type: "code",
    client_id: configuration.clientId,
    redirect_uri: PAGE,
    scope: "openid",
    state: attempt.state,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
  })}`);
}

/**
 * Forget the tokens, revoke them, and end the session at Cognito. A copy of the refresh token is then worth nothing
 * (RFC 7009); an access token works until it expires, because API Gateway does not ask Cognito. Throws if Cognito cannot
 * be reached.
 */
export async function signOut() {
  const tokens = stored();
  sessionStorage.clear();
  if (tokens) {
    const body = new URLSearchParams({ client_id: configuration.clientId, token: tokens.refresh });
    // Unlike the token endpoint, this one is not documented to let other origins read its answer.
    await fetch(`${configuration.signInUrl}/oauth2/revoke`, { method: "POST", body, mode: "no-cors", keepalive: true });
  }
  location.assign(`${configuration.signInUrl}/logout?${new URLSearchParams({ client_id: configuration.clientId, logout_uri: PAGE })}`);
}

/**
 * A token for the API; a new one if the current one has expired or `isRefused`.
 * @param {boolean} isRefused
 */
export async function accessToken(isRefused) {
  const tokens = stored();
  if (!tokens) throw new SessionLost("You are not signed in.");
  if (!isRefused && claims(tokens.access).exp - EARLY_SECONDS > Date.now() / 1000) return tokens.access;
  refreshing ??= fetchTokens({ grant_type: "refresh_token", refresh_token: tokens.refresh }).finally(() => { refreshing = undefined; });
  return (await refreshing).access;
}

/**
 * The user who is signed in. This decides what the page shows; the API decides what is allowed.
 * @returns {User | null}
 */
export function user() {
  const tokens = stored();
  if (!tokens) return null;
  const { username, "cognito:groups": groups = [] } = claims(tokens.access);
  return { name: username, mayAct: groups.includes("operator") };
}

/**
 * @param {Record<string, string>} form
 * @returns {Promise<Tokens>}
 */
async function fetchTokens(form) {
  const answer = await fetch(`${configuration.signInUrl}/oauth2/token`, {
    method: "POST",
    body: new URLSearchParams({ client_id: configuration.clientId, ...form }),
  });
  if (answer.status >= 500) throw new Error(`The sign-in service answered ${answer.status}.`);
  if (!answer.ok) {
    sessionStorage.removeItem(TOKENS);
    throw new SessionLost("Your session has ended.");
  }
  const granted = await answer.json();
  if (form.grant_type === "refresh_token" && !stored()) throw new SessionLost("You have signed out.");
  const tokens = { access: granted.access_token, refresh: granted.refresh_token ?? form.refresh_token };
  sessionStorage.setItem(TOKENS, JSON.stringify(tokens));
  return tokens;
}

/** @returns {Tokens | null} */
const stored = () => JSON.parse(sessionStorage.getItem(TOKENS) ?? "null");

/**
 * Reads a token without checking its signature, which API Gateway does.
 * @param {string} token
 * @returns {{ exp: number, username: string, "cognito:groups"?: string[] }}
 */
function claims(token) {
  const payload = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (character) => character.charCodeAt(0))));
}

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
/** @param {Uint8Array} data */
const base64url = (data) => btoa(String.fromCharCode(...data)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
