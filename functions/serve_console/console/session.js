// Signing in at Cognito: authorization code with PKCE (RFC 7636), no secret in the page.
// The tokens live in the tab's sessionStorage: a reload keeps them, closing the tab ends them.

const TOKENS = "tokens";
const ATTEMPT = "sign-in";
const PAGE = location.origin + location.pathname;
// A token that ends while a request is under way would be of no use.
const EARLY_SECONDS = 60;

/** @typedef {{ access: string, refresh: string }} Tokens */
/** @typedef {{ name: string, mayAct: boolean }} User */

/** @type {{ signInUrl: string, clientId: string }} */
let configuration;
/** @type {Promise<Tokens> | undefined} */
let refreshing;

/** Nobody is signed in, or no longer. */
export class SessionLost extends Error {}

/** Read where to sign in, and finish signing in when we come back from there. Gives the view to return to, or null. */
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
  // Somebody else's code would sign us in as somebody else (RFC 6749 section 10.12).
  if (!attempt || query.get("state") !== attempt.state) throw new SessionLost("This sign-in was not begun here.");
  const code = query.get("code");
  if (code === null) throw new SessionLost(query.get("error_description") ?? "The sign-in was not completed.");
  await fetchTokens({ grant_type: "authorization_code", code, redirect_uri: PAGE, code_verifier: attempt.verifier });
  return view;
}

/** Leave for the sign-in pages, to return to the present view. */
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

/** Forget the tokens, and end the session at Cognito too. */
export function signOut() {
  sessionStorage.removeItem(TOKENS);
  location.assign(`${configuration.signInUrl}/logout?${new URLSearchParams({ client_id: configuration.clientId, logout_uri: PAGE })}`);
}

/**
 * A token for the API; a fresh one where the present one is over, or `isRefused`.
 * @param {boolean} isRefused
 */
export async function accessToken(isRefused) {
  const tokens = stored();
  if (!tokens) throw new SessionLost("Nobody is signed in.");
  if (!isRefused && claims(tokens.access).exp - EARLY_SECONDS > Date.now() / 1000) return tokens.access;
  refreshing ??= fetchTokens({ grant_type: "refresh_token", refresh_token: tokens.refresh }).finally(() => { refreshing = undefined; });
  return (await refreshing).access;
}

/**
 * Whoever is signed in. It decides what is shown; what is allowed, the API decides.
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
  if (answer.status >= 500) throw new Error(`The sign-in service answers ${answer.status}.`);
  if (!answer.ok) {
    sessionStorage.removeItem(TOKENS);
    throw new SessionLost("Your session has ended.");
  }
  const granted = await answer.json();
  const tokens = { access: granted.access_token, refresh: granted.refresh_token ?? form.refresh_token };
  sessionStorage.setItem(TOKENS, JSON.stringify(tokens));
  return tokens;
}

/** @returns {Tokens | null} */
const stored = () => JSON.parse(sessionStorage.getItem(TOKENS) ?? "null");

/**
 * API Gateway checks the signature; here it is only read.
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
