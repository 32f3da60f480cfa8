/** Chooses where the pictures come from, and draws them, framed, as the model will see them. */
import { drawFramed } from "./framing.mjs";
import { insecure, sourceFailure } from "./reasons.mjs";
import { listCameras, openCamera, openScreen, openStill, openVideoFile } from "./sources.mjs";

const element = (id) => document.getElementById(id);

export class SourcePicker extends EventTarget {
  #context;
  #opening = 0;
  source = null;

  /** Events: `picture` (detail: when it was captured), `changed`. `framing()` gives the framing. */
  constructor(canvas, notices, framing) {
    super();
    this.canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.notices = notices;
    this.framing = framing;
    for (const button of this.#buttons()) {
      button.addEventListener("click", () => this.#choose(button.dataset.source));
    }
    this.#onFile("file", openVideoFile);
    this.#onFile("picture", openStill, "still");
    element("cameras").addEventListener("change", () => {
      this.#open("camera", () => openCamera(element("cameras").value, this.canvas));
    });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.#listCameras());
  }

  /** Draw the present picture again, after the framing or the size has changed. */
  redraw() {
    if (this.source) drawFramed(this.#context, this.source.picture, this.source.size, this.framing());
  }

  /** Give the frames this size, the stream's. */
  resize(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    [this.canvas.width, this.canvas.height] = [width, height];
    this.redraw();
  }

  close() {
    this.source?.close();
    this.source = null;
    element("cameras").hidden = true;
    element("source-name").textContent = "";
    for (const button of this.#buttons()) button.setAttribute("aria-pressed", "false");
    this.dispatchEvent(new Event("changed"));
  }

  #buttons() {
    return [...element("sources").querySelectorAll("button")];
  }

  #choose(kind) {
    if (kind === "file") return element("file").click();
    if (kind === "still") return element("picture").click();
    const problem = insecure();
    if (problem) return this.notices.announce("source", { ...problem, urgent: true });
    return this.#open(kind, kind === "camera" ? () => openCamera("", this.canvas) : openScreen);
  }

  #onFile(id, open, kind = id) {
    element(id).addEventListener("change", () => {
      const [file] = element(id).files;
      // So that choosing the same file again is a change, too.
      element(id).value = "";
      if (file) this.#open(kind, () => open(file));
    });
  }

  async #open(kind, open) {
    const turn = ++this.#opening;
    let source;
    try {
      source = await open();
    } catch (error) {
      console.info(`The ${kind} did not open:`, error.name, error.message);
      this.notices.announce("source", { ...sourceFailure(kind, error), urgent: true });
      return;
    }
    // Another one was chosen meanwhile.
    if (turn !== this.#opening) return source.close();
    this.notices.hide("source");
    this.close();
    this.#use(source, kind);
    if (kind === "camera") await this.#listCameras();
  }

  #use(source, kind) {
    this.source = source;
    element("source-name").textContent = kind === "camera" ? "" : source.label;
    for (const button of this.#buttons()) {
      button.setAttribute("aria-pressed", String(button.dataset.source === kind));
    }
    source.watch((captured) => {
      this.redraw();
      this.dispatchEvent(new CustomEvent("picture", { detail: captured }));
    });
    source.ended.then(() => this.#ended(source, kind));
    this.dispatchEvent(new Event("changed"));
  }

  #ended(source, kind) {
    if (source !== this.source) return;
    this.close();
    const title = kind === "camera" ? "The camera is gone" : "Sharing has ended";
    this.notices.announce("source", { title, text: "Choose a source to go on.", urgent: true });
  }

  async #listCameras() {
    const list = element("cameras");
    const cameras = await listCameras();
    list.replaceChildren(...cameras.map(({ id, label }) => new Option(label, id)));
    list.value = this.source?.deviceId ?? "";
    list.hidden = !this.source?.deviceId || !cameras.length;
  }
}
