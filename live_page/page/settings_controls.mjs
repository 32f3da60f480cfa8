/** Guidance and similar frames, which change at once; strength, steps and seed, which start over. */
import { PromptBox } from "./prompt_box.mjs";

const element = (id) => document.getElementById(id);
const AT_ONCE = ["cfg", "threshold"];
const STARTS_OVER = ["denoise", "steps", "seed"];
const NAMES = {
  prompt: "prompt",
  negative: "negative prompt",
  cfg: "guidance",
  threshold: "similar frames",
  denoise: "strength",
  steps: "steps",
  seed: "seed",
  cut: "hard cut",
};
const TEXTS = {
  cfg: (value) => Number(value).toFixed(1),
  threshold: (value) => (Number(value) >= 1 ? "off" : `${(100 * value).toFixed(1)} %`),
  denoise: (value) => Number(value).toFixed(2),
  steps: (value) => String(value),
};

export class SettingsControls {
  /** By name: what the input showed when the stream's value was put into it. */
  #shown = {};

  /** `change(name, value)` sends a new value to the stream. */
  constructor(change) {
    this.change = change;
    this.prompts = new PromptBox(change);
    for (const name of AT_ONCE) {
      element(name).addEventListener("input", () => this.#label(name));
      element(name).addEventListener("change", () => change(name, Number(element(name).value)));
    }
    for (const name of STARTS_OVER) {
      element(name).addEventListener("input", () => this.#mark());
    }
    element("dice").addEventListener("click", () => {
      element("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
      this.#mark();
    });
    element("apply-restart").addEventListener("click", () => this.#applyRestart());
    element("seed").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#applyRestart();
    });
    element("controls").addEventListener("submit", (event) => event.preventDefault());
    for (const name of [...AT_ONCE, ...STARTS_OVER]) this.#label(name);
    this.close();
  }

  /** Show what the stream has: {name: {value, available, remedy}}. */
  open(settings) {
    for (const [name, { value, available, remedy }] of Object.entries(settings)) {
      if (name === "prompt") this.prompts.allow(available, remedy);
      else if (name in TEXTS || name === "seed") element(name).disabled = !available;
      this.#show(name, value);
    }
    element("dice").disabled = element("seed").disabled;
    this.#mark();
  }

  /** There is no stream to set: nothing can be changed. */
  close() {
    this.prompts.allow(false);
    for (const id of [...AT_ONCE, ...STARTS_OVER, "dice", "apply-restart"]) {
      element(id).disabled = true;
    }
  }

  /** Show what took effect, and from which frame on. */
  applied({ applied: name, value, frame, restarts }) {
    this.#show(name, value);
    this.#mark();
    const since = frame >= 0 ? ` from frame ${frame} on` : "";
    const over = restarts ? "; the memory starts over" : "";
    this.say(`Last change: ${NAMES[name] ?? name}${since}${over}.`);
  }

  say(text) {
    element("last-change").textContent = text;
  }

  /** Put a refused control back to what the stream has. */
  restore(name) {
    if (name in this.#shown) element(name).value = this.#shown[name];
    this.#mark();
  }

  #show(name, value) {
    if (name === "prompt" || name === "negative") return this.prompts.show(name, value);
    // Before the first run there are none.
    if (value == null || ![...AT_ONCE, ...STARTS_OVER].includes(name)) return;
    const input = element(name);
    const edit = this.#edited(name) ? input.value : null;
    // The graph may have set more than the slider offers.
    if (Number(value) > Number(input.max || Infinity)) input.max = value;
    if (Number(value) < Number(input.min || -Infinity)) input.min = value;
    input.value = value;
    this.#shown[name] = input.value;
    if (edit !== null) input.value = edit;
    this.#label(name);
  }

  /** Whether the user has changed it and not applied it yet. */
  #edited(name) {
    const known = STARTS_OVER.includes(name) && name in this.#shown;
    return known && element(name).value !== this.#shown[name];
  }

  #applyRestart() {
    if (!element("seed").reportValidity()) return;
    for (const name of STARTS_OVER.filter((each) => this.#edited(each))) {
      const value = element(name).value;
      this.change(name, name === "seed" ? value : Number(value));
    }
  }

  #mark() {
    for (const name of STARTS_OVER) this.#label(name);
    const edited = STARTS_OVER.some((name) => this.#edited(name));
    element("apply-restart").disabled = element("steps").disabled || !edited;
  }

  #label(name) {
    const output = document.querySelector(`output[for="${name}"]`);
    if (output) output.textContent = TEXTS[name](element(name).value);
  }
}
