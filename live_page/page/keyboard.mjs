/** Keys for everything that has a button; never while a text is being written. */
const WRITES = 'textarea, select, input:not([type="checkbox"], [type="radio"], [type="range"])';

/** `actions` maps a key, in lower case, to what it does. */
export function bindKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest(WRITES) || document.querySelector("dialog[open]")) return;
    // Space presses the button that has the focus.
    if (event.key === " " && event.target.closest("button, input, summary")) return;
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
