/** What the page remembers on this browser: the view, the framing, the user's own presets. */
const PREFIX = "live2diff.live.";

/** The value of `name`; `fallback` when there is none, or the browser keeps nothing for us. */
export function recall(name, fallback) {
  try {
    const found = localStorage.getItem(PREFIX + name);
    return found === null ? fallback : JSON.parse(found);
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch (error) {
    console.info(`${name} is not remembered:`, error.message);
  }
}
