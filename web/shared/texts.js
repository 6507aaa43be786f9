// The texts that scripts of this pack show, in the user's language: locales/<language>/main.json, key "discomfort".
// English stands in the calls, so that nothing is asked of the server for it.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

let translated = {};

/** Load the texts of the user's language. Without an answer the texts stay English. */
export async function loadTexts() {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  if (language === "en") return;
  try {
    const answer = await api.fetchApi("/i18n");
    if (answer.ok) translated = (await answer.json())[language]?.discomfort ?? {};
  } catch {
    translated = {};
  }
}

/**
 * A text in the user's language.
 * @param {string} key its place in main.json, below "discomfort"; dots lead deeper
 * @param {string} english the text in English
 * @param {Record<string, unknown>} values what to put in place of {name}
 */
export function text(key, english, values = {}) {
  const found = key.split(".").reduce((branch, part) => branch?.[part], translated);
  return (typeof found === "string" ? found : english).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
