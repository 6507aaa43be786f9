// Requests to this pack's routes of the server, which need not be there: a nested server has none, and its page only
// converts workflows. So nothing is asked before somebody touches mouse or keyboard, and nothing more after a 404.
import { api } from "../../../scripts/api.js";

const TOUCHES = ["pointermove", "pointerdown", "keydown", "wheel"];
// Milliseconds; a server that is busy loading a model answers late.
const PATIENCE = 15000;

let isMissing = false;
let isTouched = false;
const waiting = [];

function touched() {
  isTouched = true;
  for (const name of TOUCHES) window.removeEventListener(name, touched, true);
  for (const tell of waiting.splice(0)) tell();
}
for (const name of TOUCHES) window.addEventListener(name, touched, { capture: true, passive: true });

/** Wait for the first sign of a person before the screen. */
export function whenTouched() {
  return isTouched ? Promise.resolve() : new Promise((tell) => waiting.push(tell));
}

/** Whether somebody is there, and the server has the routes as far as is known. */
export function isReady() {
  return isTouched && !isMissing;
}

/**
 * The answer of a route: {error} with a sentence where it refuses, null where there are no routes or no server.
 * @param {string} path such as "/discomfort/workflows"
 * @param {object} [body] sent as JSON by POST; without it the request is a GET
 */
export async function ask(path, body) {
  await whenTouched();
  if (isMissing) return null;
  const options = { signal: AbortSignal.timeout(PATIENCE) };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  try {
    const answer = await api.fetchApi(path, options);
    if (!answer.headers.get("Content-Type")?.includes("json")) {
      // The routes answer in JSON also where they refuse: this 404 is the server's own.
      if (answer.status === 404 || answer.status === 405) isMissing = true;
      return null;
    }
    return await answer.json();
  } catch {
    return null;
  }
}
