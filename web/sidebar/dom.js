/**
 * Making and changing elements. Text becomes text: nothing here reads markup, so values may hold any.
 */

/**
 * An element.
 * @param {string} tag
 * @param {object} about class, text, and "on" (listeners by event); every other key is an attribute; null leaves it out
 * @param {...(Node|null)} children
 */
export function make(tag, about = {}, ...children) {
  const element = document.createElement(tag)
  for (const [key, value] of Object.entries(about)) {
    if (value === null || value === undefined) continue
    if (key === "class") element.className = value
    else if (key === "text") element.textContent = value
    else if (key === "on")
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener)
    else element.setAttribute(key, value)
  }
  element.append(...children.filter(Boolean))
  return element
}

/** An icon of the font that the editor brings; it says nothing to screen readers. */
export function icon(name) {
  return make("i", { class: `pi pi-${name}`, "aria-hidden": "true" })
}

/** A button with an icon, a word, or both. */
export function button(about, iconName = null, word = null) {
  const words = word === null ? [] : [make("span", { text: word })]
  return make("button", { type: "button", ...about }, iconName ? icon(iconName) : null, ...words)
}

/** Change the text only where it differs, so that selections and screen readers are left alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name)
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value)
}

export function setShown(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown
}

/**
 * Make the children of *parent* those of *items*, in order. What is there already stays where it is, and what has the
 * focus keeps it.
 * @param {Element} parent
 * @param {Array} items
 * @param {(item: any) => string} keyOf
 * @param {(item: any) => {element: Element, update?: Function}} create
 * @param {Map<string, object>} made the parts that were made, by key; kept between the calls
 */
export function keyed(parent, items, keyOf, create, made) {
  const wanted = new Set(items.map(keyOf))
  for (const [key, part] of made) {
    if (wanted.has(key)) continue
    part.element.remove()
    made.delete(key)
  }
  let place = parent.firstElementChild
  for (const item of items) {
    const key = keyOf(item)
    if (!made.has(key)) made.set(key, create(item))
    const part = made.get(key)
    if (part.element === place) place = place.nextElementSibling
    else parent.insertBefore(part.element, place)
    part.update?.(item)
  }
}
