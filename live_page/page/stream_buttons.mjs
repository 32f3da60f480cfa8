/** Start, pause, stop, hard cut and record: what each does, and when it can be pressed. */
import { fedHere, recordedTime, startWords } from "./words.mjs";

const element = (id) => document.getElementById(id);

export class StreamButtons {
  constructor(session, picker, notices) {
    this.session = session;
    this.picker = picker;
    this.notices = notices;
    const actions = {
      start: () => this.#start(),
      stop: () => session.stop(),
      cut: () => session.set("cut", true),
      record: () => session.command(session.status.recording ? "stop recording" : "record"),
    };
    for (const [id, act] of Object.entries(actions)) element(id).addEventListener("click", act);
  }

  /** Press a button by its key, if it can be pressed. */
  press(id) {
    element(id).click();
  }

  refresh() {
    const { status, connection, sending } = this.session;
    const open = connection.state === "open";
    const state = (open && status?.state) || "waiting";
    const runs = state === "running" || state === "paused";
    element("start").textContent = startWords({ sending }, status);
    element("start").disabled = !open || state === "starting";
    element("stop").disabled = !(runs || state === "starting" || this.session.wanted);
    element("cut").disabled = !runs;
    element("record").disabled = !runs;
    this.#showRecording(runs ? recordedTime(status.recording) : null);
    for (const button of element("sources").querySelectorAll("button")) {
      button.disabled = runs && !fedHere(status);
    }
  }

  #showRecording(time) {
    element("record-text").textContent = time ?? "Record";
    element("record").setAttribute("aria-pressed", String(time !== null));
    element("record").setAttribute("aria-label", time ? "Stop recording" : "Record");
    element("record").title = time ? "Stop recording (R)" : "Record (R)";
  }

  #start() {
    if (!this.picker.source && fedHere(this.session.status)) {
      this.notices.announce("source", {
        title: "Choose a source first",
        text: "A camera, a screen, a video file or a picture.",
      });
      element("sources").querySelector("button").focus();
      return;
    }
    this.session.startOrPause();
  }
}
