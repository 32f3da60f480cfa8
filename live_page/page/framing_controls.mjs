/** The controls of the framing: crop or whole, mirror, turn, zoom and which part. */
import { WHOLE } from "./framing.mjs";
import { recall, remember } from "./memory.mjs";

const element = (id) => document.getElementById(id);
const percent = (value) => `${Math.round(100 * value)} %`;

export class FramingControls {
  /** `changed()` is called after every change; `framing` has the present one. */
  constructor(changed) {
    this.framing = { ...WHOLE, ...recall("framing", {}) };
    this.changed = changed;
    for (const choice of this.#fits()) {
      choice.addEventListener("change", () => this.#set({ fit: choice.value }));
    }
    element("mirror").addEventListener("change", () => this.#set({ mirror: element("mirror").checked }));
    element("turn").addEventListener("click", () => this.turn());
    for (const [id, name] of [["zoom", "zoom"], ["across", "x"], ["down", "y"]]) {
      element(id).addEventListener("input", () => this.#set({ [name]: Number(element(id).value) }));
    }
    element("reset-framing").addEventListener("click", () => this.#set(WHOLE));
    this.#show();
  }

  mirror() {
    this.#set({ mirror: !this.framing.mirror });
  }

  turn() {
    this.#set({ turn: (this.framing.turn + 90) % 360 });
  }

  #fits() {
    return [...document.querySelectorAll('#framing input[name="fit"]')];
  }

  #set(change) {
    this.framing = { ...this.framing, ...change };
    remember("framing", this.framing);
    this.#show();
    this.changed();
  }

  #show() {
    const { fit, mirror, turn, zoom, x, y } = this.framing;
    for (const choice of this.#fits()) choice.checked = choice.value === fit;
    element("mirror").checked = mirror;
    element("turned").textContent = `${turn}°`;
    const shown = { zoom: [zoom, `${zoom.toFixed(2)}×`], across: [x, percent(x)], down: [y, percent(y)] };
    for (const [id, [value, text]] of Object.entries(shown)) {
      element(id).value = value;
      document.querySelector(`output[for="${id}"]`).textContent = text;
    }
  }
}
