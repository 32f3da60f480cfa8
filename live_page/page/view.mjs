/** How input and result are shown: side by side, one over the other with a slider, or the result. */
import { recall, remember } from "./memory.mjs";

const VIEWS = ["side", "over", "result"];
const NARROW = "(max-width: 760px)";

export class View {
  constructor() {
    this.panes = document.getElementById("panes");
    this.split = document.getElementById("split");
    this.choices = [...document.querySelectorAll('#views input[name="view"]')];
    for (const choice of this.choices) {
      choice.addEventListener("change", () => this.choose(choice.value));
    }
    this.split.addEventListener("input", () => this.#placeSplit());
    document.getElementById("full-screen").addEventListener("click", () => this.fullScreen());
    this.#placeSplit();
    const usual = matchMedia(NARROW).matches ? "over" : "side";
    const known = recall("view", usual);
    this.#apply(VIEWS.includes(known) ? known : usual);
  }

  choose(view) {
    this.#apply(view);
    remember("view", view);
  }

  next() {
    this.choose(VIEWS[(VIEWS.indexOf(this.panes.dataset.view) + 1) % VIEWS.length]);
  }

  async fullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await this.panes.requestFullscreen?.();
  }

  /** Give both panes the shape of the stream's frames. */
  shape(width, height) {
    this.panes.style.setProperty("--aspect", String(width / height));
  }

  #apply(view) {
    this.panes.dataset.view = view;
    this.split.disabled = view !== "over";
    for (const choice of this.choices) choice.checked = choice.value === view;
  }

  #placeSplit() {
    this.panes.style.setProperty("--split", `${this.split.value}%`);
    this.split.setAttribute("aria-valuetext", `${this.split.value} % input`);
  }
}
