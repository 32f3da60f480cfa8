/** Shows what the stream is doing: the words in the top bar, over the result, and in cards. */
import { fedHere, stateWords, veilWords } from "./words.mjs";

const element = (id) => document.getElementById(id);

export class StreamState {
  #drawn = false;

  constructor(session, picker, notices) {
    this.session = session;
    this.picker = picker;
    this.notices = notices;
    session.receiver.addEventListener("shown", () => {
      if (this.#drawn) return;
      this.#drawn = true;
      this.refresh();
    });
  }

  refresh() {
    const { role, sending, status } = this.session;
    const source = this.picker.source;
    const now = { connection: this.session.connection.state, role, sending, source };
    const state = now.connection === "open" ? (status?.state ?? "waiting") : now.connection;
    element("state").dataset.state = state;
    element("state-text").textContent = stateWords(now, status);
    element("input-veil").hidden = Boolean(source);
    element("result-veil").hidden = this.#drawn;
    [element("veil-title").textContent, element("veil-text").textContent] = veilWords(now, status);
    const fed = state === "running" && (status.sender || !fedHere(status));
    this.#showWarmup(fed ? status.warmup : null);
    this.#showServer(now.connection);
    this.#showWatching(now, status);
    this.#showNotices(status?.notices ?? []);
  }

  /** Show an error that the server sent. */
  refused({ error, code, remedy = "" }) {
    // The page gets a new token, or says that the server is gone, by itself.
    if (code === "token") return;
    const title = code === "failed" ? `The stream has ended: ${error}` : error;
    this.notices.announce("error", { title, text: remedy, urgent: true });
  }

  #showWarmup(warmup) {
    element("warmup").hidden = !warmup;
    if (!warmup) return;
    element("warmup-text").textContent =
      `Warming up, ${warmup.done} of ${warmup.frames} frames: the input is shown meanwhile`;
    Object.assign(element("warmup-progress"), { value: warmup.done, max: warmup.frames });
  }

  #showServer(connection) {
    if (connection === "lost") {
      this.notices.show("server", {
        title: "The server is gone",
        text: "This page tries again every few seconds and goes on by itself.",
        urgent: true,
        stays: true,
      });
    } else if (connection === "refused") {
      this.notices.show("server", {
        title: "The server has another version of this page",
        text: "Load it again.",
        urgent: true,
        stays: true,
        action: { label: "Reload", run: () => location.reload() },
      });
    } else {
      this.notices.hide("server");
    }
  }

  #showWatching({ connection, role }, status) {
    const elsewhere = role === "watch" && status?.sender && fedHere(status);
    if (connection !== "open" || !elsewhere) return this.notices.hide("watch");
    this.notices.show("watch", {
      title: "Another page feeds this stream",
      text: "You are watching. What you change here counts for everybody.",
    });
  }

  #showNotices(texts) {
    if (!texts.length) return this.notices.hide("stream");
    this.notices.show("stream", { title: "The stream says", text: texts.join(" ") });
  }
}
