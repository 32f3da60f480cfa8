/** The prompt, its presets, and over how many frames a new one is blended in. */
import { recall, remember } from "./memory.mjs";

const BUILT_IN = [
  ["Watercolor", "watercolor painting, soft light, visible brush strokes, paper texture, highly detailed"],
  ["Oil", "oil painting, thick impasto brush strokes, warm light, rich colors"],
  ["Anime", "anime style, clean line art, cel shading, vivid colors, detailed background"],
  ["Clay", "claymation, stop motion puppet, plasticine, soft studio light"],
  ["Ink", "black ink drawing, cross hatching, white paper, high contrast"],
  ["Neon", "neon lights at night, cyberpunk city, glowing edges, rain"],
];
const element = (id) => document.getElementById(id);

export class PromptBox {
  #applied = { prompt: "", negative: "" };

  /** `apply(name, value)` sends a setting. */
  constructor(apply) {
    this.apply = apply;
    this.text = element("prompt");
    this.negative = element("negative");
    this.blend = element("blend");
    this.button = element("apply-prompt");
    this.button.addEventListener("click", () => this.submit());
    for (const area of [this.text, this.negative]) {
      area.addEventListener("input", () => this.#mark());
      area.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
      });
    }
    this.#listPresets();
  }

  /** Send what differs from the stream's texts. */
  submit() {
    if (this.text.disabled || !this.blend.reportValidity()) return;
    if (this.text.value !== this.#applied.prompt) {
      this.apply("prompt", { text: this.text.value, blend: Number(this.blend.value) });
    }
    if (this.negative.value !== this.#applied.negative) {
      this.apply("negative", { text: this.negative.value });
    }
  }

  /** Show the stream's own text, unless the user is writing another. */
  show(name, value) {
    const area = { prompt: this.text, negative: this.negative }[name];
    const edited = area.value !== this.#applied[name];
    this.#applied[name] = value?.text ?? "";
    if (!edited) area.value = this.#applied[name];
    if (value?.blend) this.blend.value = value.blend;
    this.#mark();
  }

  /** Allow or refuse new texts; `remedy` says what makes them possible. */
  allow(available, remedy) {
    for (const part of [this.text, this.negative, this.blend]) part.disabled = !available;
    for (const chip of element("presets").querySelectorAll("button")) chip.disabled = !available;
    element("prompt-remedy").hidden = available || !remedy;
    element("prompt-remedy").textContent = remedy ?? "";
    this.#mark();
  }

  #mark() {
    const changed =
      this.text.value !== this.#applied.prompt || this.negative.value !== this.#applied.negative;
    this.button.disabled = this.text.disabled || !changed;
  }

  #listPresets() {
    const own = recall("presets", []);
    const chips = [...BUILT_IN, ...own].map(([name, text]) => this.#chip(name, text));
    own.forEach(([name], index) => chips[BUILT_IN.length + index].append(this.#remover(name)));
    const keep = textButton("+ Keep this", () => this.#keep());
    keep.title = "Keep the prompt above as a preset in this browser";
    element("presets").replaceChildren(...chips, keep);
  }

  #chip(name, text) {
    const chip = document.createElement("span");
    chip.className = "chip";
    const choose = textButton(name, () => {
      this.text.value = text;
      this.submit();
    });
    choose.title = text;
    chip.append(choose);
    return chip;
  }

  #remover(name) {
    const remove = textButton("×", () => this.#savePresets((own) => own.filter(([n]) => n !== name)));
    remove.setAttribute("aria-label", `Remove the preset ${name}`);
    return remove;
  }

  #keep() {
    const text = this.text.value.trim();
    if (!text) return;
    const name = text.split(",")[0].slice(0, 24);
    this.#savePresets((own) => [...own.filter(([n]) => n !== name), [name, text]]);
  }

  #savePresets(change) {
    remember("presets", change(recall("presets", [])));
    this.#listPresets();
  }
}

function textButton(label, run) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", run);
  return button;
}
